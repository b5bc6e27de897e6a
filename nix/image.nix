# From locked inputs to the files of one image: kernel, initial ramdisk, three disks (root, runtime, model), command line.
{ inputs, lib, profile, image, policySha256, settings, source, model }:
let
  chosen = image.profiles.${profile};
  libraries = image.runtimes.${chosen.runtime};
  verity = ../builder/verity.py;
  cpio = ../builder/cpio.py;
  erofs = ../builder/erofs.py;

  # Our own packages, without what an editor or an interpreter leaves beside them.
  ours = name: builtins.path {
    inherit name;
    path = source + "/${name}";
    filter = path: type:
      let base = baseNameOf path; in
      base != "__pycache__" && builtins.match "\\..*|.*\\.pyc|.*~|.*\\.orig" base == null;
  };

  trees = groups: map (group: lib.unpack "${group}-files" (inputs.debs group)) groups;
  wheels = groups: builtins.concatLists (map inputs.wheels groups);

  kernelFiles = lib.unpack "kernel-files" (inputs.debs "kernel");
  own = import ./kernel.nix { inherit inputs lib; };
  kernelOf = {
    debian = lib.python {
      name = "kernel";
      main = ./scripts/pick.py;
      what = { tree = kernelFiles; pattern = "boot/vmlinuz-*"; name = "vmlinuz"; };
    };
    own = own.kernel;
  };
in
assert lib.available (chosen.external or [ ]);
rec {
  inherit (lib) tools;

  seed-check = lib.sh {
    name = "seed-check";
    script = ./scripts/seed-check.sh;
    package = inputs.seedPackage;
    member = inputs.seedMember;
    candidate = "${inputs.seed}/bin/busybox";
  };

  uki-files = lib.unpack "uki-files" (inputs.debs "uki");

  kernel = kernelOf.${chosen.kernel};
  kernel-compiled = own.compiled;

  firmware = lib.python {
    name = "firmware";
    main = ./scripts/pick.py;
    what = {
      tree = lib.unpack "firmware-files" (inputs.debs "firmware");
      pattern = "usr/share/ovmf/OVMF.fd";
      name = "firmware";
    };
  };

  # Our own kernel has everything built in, and needs a ramdisk only where there are no disks (AWS Nitro).
  initrd = if !chosen.ramdisk then null else lib.python {
    name = "initrd";
    main = ./scripts/initrd.py;
    modules = [ cpio ../builder/locked.py ];
    what = {
      tree = lib.unpack "initrd-files" (inputs.debs "initrd");
      kernel = if chosen.kernel == "debian" then kernelFiles else null;
      modules = if chosen.kernel == "debian" then image.modules else [ ];
      init = lib.file ./guest/init.sh;
    };
  };

  rootfs = lib.python {
    name = "rootfs-${profile}";
    main = ./scripts/rootfs.py;
    modules = [ verity erofs ../builder/locked.py ];
    what = {
      label = "rootfs-${profile}";
      disk = "rootfs";
      listing = "files.tsv";
      place = "";
      trees = trees chosen.debs;
      wheels = wheels chosen.wheels;
      packages = builtins.listToAttrs (map (name: { inherit name; value = ours name; }) chosen.packages);
      programs = {
        quotary-init = lib.file ./guest/init.py;
        quotary-first = lib.file ./guest/first.py;
      };
      inherit (chosen) links;
      inherit (image) keep drop files folders;
    };
  };

  # What runs a model, which changes at other times than our code: the root's bytes do not follow from it, nor it
  # from them. What a wheel of the root's gives is not given again.
  runtime = if !(chosen ? runtime) then null else lib.python {
    name = "runtime";
    main = ./scripts/rootfs.py;
    modules = [ verity erofs ../builder/locked.py ];
    what = {
      label = "runtime";
      disk = "runtime";
      listing = "runtime.tsv";
      place = "srv/runtime/";
      trees = trees libraries.debs;
      wheels =
        let known = map (wheel: wheel.filename) (wheels chosen.wheels); in
        builtins.filter (wheel: !(builtins.elem wheel.filename known)) (wheels libraries.wheels);
      packages = { };
      programs = { };
      files = { };
      folders = [ ];
      inherit (libraries) links;
      inherit (image) keep drop;
    };
  };

  model-disk = if model == null then null else lib.python {
    name = "model-disk";
    main = ./scripts/model.py;
    modules = [ verity erofs ../builder/locked.py ];
    what = { label = "model"; tree = model; };
  };

  boot = lib.python {
    name = "boot";
    main = ./scripts/boot.py;
    modules = [ ../builder/uki.py ../builder/locked.py ];
    what = {
      inherit profile kernel initrd firmware rootfs runtime policySha256 settings;
      model = model-disk;
      inherit (image.kernels.${chosen.kernel}) words;
      uki = uki-files;
    };
  };
}
