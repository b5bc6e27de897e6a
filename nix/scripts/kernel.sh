# Compile the kernel in a root of its own: the locked compiler's files on /usr, since make, gcc and perl expect a
# file system layout. The compiler is bound read-only, because a root in its own namespace could write to the store.
mkdir root root/usr root/bin root/dev root/tmp root/linux
for name in lib lib64; do ln -s "usr/$name" "root/$name"; done
ln -s /usr/bin/bash root/bin/sh
ln -s /usr/bin/mawk root/bin/awk
mkdir root/linux/source
ar p "$source" data.tar.xz | unxz | tar -x -O -f - ./usr/src/linux-source-6.12.tar.xz | unxz |
  tar -x -o -C root/linux/source --strip-components 1 -f -
for patch in $patches; do (cd root/linux/source && patch -p1 < "$patch"); done
cp "$config" root/linux/wanted
cp "$inside" root/linux/make.sh
unshare -Urm sh -eu -c '
  mount -o bind "$1/usr" root/usr
  mount -o remount,bind,ro root/usr
  mount -o rbind /dev root/dev
  exec chroot root /bin/sh -eu /linux/make.sh
' sh "$compiler"
mkdir "$out"
cp root/linux/built/arch/x86/boot/bzImage root/linux/built/.config "$out"
mv "$out/.config" "$out/config"
