# Every input of every image: a derivation that can only succeed by being in the store already.
#
# The output path follows from name and hash alone, so `quotary build prefetch` (or anybody, from any mirror)
# puts the bytes there and nothing is built. Where they are absent the build stops at a builder that does not
# exist and whose path says what to do. Nothing else in this folder reads a byte that is not locked here.
{ debian, pypi, system }:
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
in
rec {
  deb = key: let it = debian.debs.${key}; in required {
    name = clean "${it.name}_${it.version}_${it.arch}.deb";
    inherit (it) sha256;
  };
  wheel = key: let it = pypi.wheels.${key}; in {
    inherit (it) filename;
    path = required { name = it.filename; inherit (it) sha256; };
  };
  debs = group: map deb debian.groups.${group};
  wheels = group: map wheel pypi.groups.${group};

  # The first executable: a static busybox out of its locked package; `seed-check` proves that it came from there.
  seed = required { name = "busybox-seed"; sha256 = debian.seed.narSha256; mode = "recursive"; };
  seedPackage = deb debian.seed.package;
  seedMember = debian.seed.member;
}
