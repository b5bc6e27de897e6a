# Run $main under the locked Python without a file system layout: the loader is told where everything is.
mkdir -p lib/builder
touch lib/builder/__init__.py
for module in $modules; do
  name=${module##*/}
  cp "$module" "lib/builder/${name#*-}"
done
libraries=$tools/usr/lib/x86_64-linux-gnu
export TOOLS="$tools" LIBRARIES="$libraries"
export PYTHONHOME="$tools/usr" PYTHONPATH="$PWD/lib" PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 PYTHONNOUSERSITE=1
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" --argv0 python3.13 \
  "$tools/usr/bin/python3.13" "$main" "$whatPath" "$out"
