# Inside the compiler's root: the wanted lines over a configuration in which everything is off, then the kernel.
# Nothing of the time, the machine or the number of the build may reach the file.
export PATH=/bin:/usr/bin HOME=/tmp TMPDIR=/tmp
export KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=quotary KBUILD_BUILD_HOST=quotary KBUILD_BUILD_VERSION=1
cd /linux/source
words="O=/linux/built ARCH=x86_64 CC=gcc-14 HOSTCC=gcc-14"
# shellcheck disable=SC2086  # several words on purpose
make $words KCONFIG_ALLCONFIG=/linux/wanted allnoconfig
# Nix says 0 where a build may take all processors; make would refuse that number.
cores=${NIX_BUILD_CORES:-0}
if [ "$cores" = 0 ]; then cores=$(nproc); fi
# shellcheck disable=SC2086
timeout 5400 make $words -s -j "$cores" bzImage
