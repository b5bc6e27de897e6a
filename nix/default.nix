# Quotary's images. No nixpkgs, no flake inputs, no hosts: see docs/build.md.
#
#   nix-build nix -A rootfs --argstr profile ci
#
# Strings, so that the command line can pass them: an empty string means "none". `fetch` is for flake.nix.
{ system ? "x86_64-linux"
, profile ? "ci"
  # Folders as absolute paths; the defaults are this checkout's.
, lock ? ""
, source ? ""
, model ? ""
  # What goes on the measured command line beside the hash trees' roots (nix/guest/init.py lists what may).
, policySha256 ? ""
, settings ? "{}"
, fetch ? null
}:
let
  folder = text: fallback: if text == "" then fallback else /. + text;
  locks = folder lock ./lock;
  read = name: builtins.fromJSON (builtins.readFile (locks + "/${name}"));
  inputs = import ./inputs.nix { debian = read "debian.json"; pypi = read "pypi.json"; inherit system fetch; };
  lib = import ./lib.nix { inherit inputs system; };
in
import ./image.nix {
  inherit inputs lib profile policySha256;
  source = folder source ../.;
  model = if model == "" then null else builtins.path { path = /. + model; name = "model"; };
  settings = builtins.fromJSON settings;
  image = builtins.fromJSON (builtins.readFile ./image.json);
}
