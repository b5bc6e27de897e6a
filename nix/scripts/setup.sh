# The first lines of every build: the seed's applets become the commands, then the derivation's script runs.
umask 022
"$builder" mkdir "$NIX_BUILD_TOP/bin"
"$builder" --install -s "$NIX_BUILD_TOP/bin"
export PATH="$NIX_BUILD_TOP/bin"
. "$1"
