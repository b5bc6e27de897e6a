# The images as a flake, for people who build with flakes. No inputs, so there is nothing to lock here: every
# input is in nix/lock.
#
# Without nixpkgs the inputs have to be in the store (`quotary build prefetch`): `nix build path:.#ci-boot`.
# With nixpkgs they are fetched: `(quotary.lib.withNixpkgs { pkgs = …; }).ci.boot` in a flake of your own.
{
  description = "Quotary's enclave images";
  inputs = { };
  outputs = { self }:
    let
      profiles = [ "ci" "cpu" "nitro" ];
      images = given: builtins.listToAttrs
        (map (profile: { name = profile; value = import ./nix ({ inherit profile; } // given); }) profiles);
      plain = images { };
    in
    {
      # { pkgs, debian?, security?, index? } -> the attributes of nix/image.nix, by profile; see nix/fetch.nix.
      lib.withNixpkgs = given: images { fetch = import ./nix/fetch.nix given; };

      packages.x86_64-linux = {
        ci-rootfs = plain.ci.rootfs;
        ci-boot = plain.ci.boot;
        cpu-rootfs = plain.cpu.rootfs;
        cpu-boot = plain.cpu.boot;
        nitro-rootfs = plain.nitro.rootfs;
        nitro-boot = plain.nitro.boot;
        own-kernel = plain.nitro.kernel;
        inherit (plain.ci) kernel initrd firmware tools;
      };
    };
}
