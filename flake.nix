# The images as a flake, for people who build with flakes. No inputs, so there is nothing to lock here: every
# input is in nix/lock, and has to be in the store before (`quotary build prefetch`).
{
  description = "Quotary's enclave images";
  inputs = { };
  outputs = { self }:
    let image = profile: import ./nix { inherit profile; }; in
    {
      packages.x86_64-linux = {
        ci-rootfs = (image "ci").rootfs;
        ci-boot = (image "ci").boot;
        cpu-rootfs = (image "cpu").rootfs;
        cpu-boot = (image "cpu").boot;
        nitro-rootfs = (image "nitro").rootfs;
        nitro-boot = (image "nitro").boot;
        own-kernel = (image "nitro").kernel;
        inherit (image "ci") kernel initrd firmware tools;
      };
    };
}
