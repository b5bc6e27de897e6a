# The three kinds of derivation: a shell script under the seed, unpacked packages, a Python script.
#
# No nixpkgs, no /bin/sh, nothing of the machine: the seed busybox runs `scripts/setup.sh`, which runs the rest.
{ inputs, system }:
let
  # A file of this checkout by its contents alone, so that a flake, which sees the whole checkout as one store
  # path, makes the same derivations as nix-build.
  file = path: builtins.path { inherit path; name = baseNameOf path; };

  sh = { name, script, ... }@attributes: derivation ({
    inherit name system;
    builder = "${inputs.seed}/bin/busybox";
    args = [ "sh" "-eu" (file ./scripts/setup.sh) (file script) ];
    LC_ALL = "C";
    TZ = "UTC";
    SOURCE_DATE_EPOCH = "1";
  } // removeAttrs attributes [ "name" "script" ]);

  # One folder with the files of several packages, as dpkg would lay them out.
  unpack = name: debs: sh { inherit name debs; script = ./scripts/unpack.sh; };

  tools = unpack "tools" (inputs.debs "tools");

  # What a profile needs and no archive of ours offers: said by name, before anything is built.
  available = external: external == [ ]
    || throw "not to be had from the lock: ${builtins.concatStringsSep ", " external}";

  # A script of this folder under the locked Python, with the modules that it shares with the builder.
  # `what` reaches it as JSON; a path or derivation in there becomes its store path.
  python = { name, main, modules ? [ ], what }: sh {
    inherit name tools;
    main = file main;
    modules = map file modules;
    script = ./scripts/python.sh;
    what = builtins.toJSON what;
    passAsFile = [ "what" ];
    # What is shipped must not lean on anything else in the store.
    allowedReferences = [ ];
  };
in
{ inherit file sh unpack tools python available; }
