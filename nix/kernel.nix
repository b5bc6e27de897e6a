# The production kernel, from Debian's kernel source and our configuration, with Debian's compiler.
#
# Two steps, so that what was configured is checked by code that a test can call: `compiled` is what make gives,
# `kernel` is the same file, once every line of kernel/config was found in the configuration it was built with.
{ inputs, lib }:
let
  config = lib.file ./kernel/config;
in
rec {
  compiled = lib.sh {
    name = "kernel-compiled";
    script = ./scripts/kernel.sh;
    inside = lib.file ./scripts/kernel-make.sh;
    compiler = lib.unpack "compiler" (inputs.debs "compiler");
    source = inputs.debs "kernel-source";
    patches = [ (lib.file ./kernel/acpi-sandbox.patch) ];
    inherit config;
  };

  kernel = lib.python {
    name = "kernel";
    main = ./scripts/kernel_config.py;
    what = { inherit compiled; wanted = config; };
  };
}
