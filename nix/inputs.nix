# Every input of every image: a derivation that can only succeed by being in the store already.
#
# The output path follows from name and hash alone, so `quotary build prefetch` (or anybody, from any mirror)
# puts the bytes there and nothing is built. Where they are absent the build stops at a builder that does not
# exist and whose path says what to do. Nothing else in this folder reads a byte that is not locked here.
#
# People with nixpkgs give `fetch` (fetch.nix): then each input is downloaded instead, to the same path.
{ debian, pypi, system, fetch ? null }:
let
  # Debian versions hold ':' and '~', which store names do not allow (builder/store.py spells them the same way).
  clean = builtins.replaceStrings [ ":" "~" ] [ "-" "-" ];
  required = { name, sha256, mode ? "flat" }: derivation {
    inherit name system;
    builder = "/INPUT-NOT-IN-STORE/run: quotary build prefetch";
    outputHashMode = mode;
    outputHashAlgo = "sha256";
    outputHash = sha256;
    preferLocalBuild = true;
  };
  get = kind: from: input: if fetch == null then required input else fetch.${kind} (input // from);
in
rec {
  deb = key: let it = debian.debs.${key}; in get "deb" { inherit (it) path suite; } {
    name = clean "${it.name}_${it.version}_${it.arch}.deb";
    inherit (it) sha256;
  };
  wheel = key: let it = pypi.wheels.${key}; in {
    inherit (it) filename;
    path = get "wheel" { project = it.name; inherit (it) filename; } { name = clean it.filename; inherit (it) sha256; };
  };
  debs = group: map deb debian.groups.${group};
  wheels = group: map wheel pypi.groups.${group};

  # The first executable: a static busybox out of its locked package; `seed-check` proves that it came from there.
  seed = get "seed" { package = seedPackage; member = seedMember; } {
    name = "busybox-seed";
    sha256 = debian.seed.narSha256;
    mode = "recursive";
  };
  seedPackage = deb debian.seed.package;
  seedMember = debian.seed.member;
}
