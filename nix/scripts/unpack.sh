# $debs -> $out: the packages' files in one tree. Owner, time and setuid bits do not survive the store.
mkdir "$out"
for deb in $debs; do
  ar p "$deb" data.tar.xz | unxz | tar -x -o -C "$out" -f -
done
