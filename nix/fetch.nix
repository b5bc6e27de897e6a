# How people with nixpkgs get the inputs: their fetchers in place of `quotary build prefetch`.
#
# A path follows from name and hash alone, so everything built from it is the same, whoever fetched.
{ pkgs
  # Addresses before the pool of each of Debian's archives and before the packages of the Python index. Debian keeps only
  # the newest version of most packages: put a mirror of your own first, or fill the store from a release's inputs.
, debian ? [ "https://deb.debian.org/debian" ]
, security ? [ "https://deb.debian.org/debian-security" ]
, index ? [ "https://files.pythonhosted.org/packages" ]
}:
let
  isSecurity = suite: builtins.match ".*-security" suite != null;
  parts = filename: builtins.match "(.*)-([^-]+)-[^-]+-[^-]+\\.whl" filename;
in
{
  deb = { name, sha256, path, suite }: pkgs.fetchurl {
    inherit name sha256;
    urls = map (archive: "${archive}/${path}") (if isSecurity suite then security else debian);
  };

  wheel = { name, sha256, project, filename }: pkgs.fetchurl {
    inherit name sha256;
    urls = map
      (packages: "${packages}/${builtins.elemAt (parts filename) 1}/${builtins.substring 0 1 project}/${project}/${filename}")
      index;
  };

  # The first executable out of its package; its archive's hash is in the lock.
  seed = { name, sha256, mode, package, member }: pkgs.runCommand name
    {
      outputHashMode = mode;
      outputHashAlgo = "sha256";
      outputHash = sha256;
      nativeBuildInputs = [ pkgs.dpkg ];
    } ''
    dpkg-deb --fsys-tarfile ${package} | tar -x -O ./${member} > busybox
    install -D -m 755 busybox $out/bin/${baseNameOf member}
  '';
}
