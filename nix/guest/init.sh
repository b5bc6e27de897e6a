#!/bin/busybox sh
# PID 1 of the initial ramdisk: load the modules, open each disk under the hash that the measured command line
# names, and hand over to the root file system. Anything unexpected ends the machine.
set -eu
export PATH=/bin:/usr/sbin

stop() {
  echo "quotary: stopped: $1" > /dev/console
  /bin/busybox sleep 1
  /bin/busybox poweroff -f
}
trap 'stop "the initial ramdisk failed"' EXIT

/bin/busybox --install -s /bin
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t securityfs -o ro,nosuid,nodev,noexec security /sys/kernel/security
mount -t devtmpfs -o nosuid,noexec dev /dev
# Drivers of evidence devices load only where the device is; what is needed and absent is named further down.
while read -r module; do insmod "/modules/$module" 2> /dev/null || :; done < /modules/order

# The value of one word of the command line; two words of the same name give two lines, which no check accepts.
value() {
  for word in $(cat /proc/cmdline); do
    case $word in "$1="*) echo "${word#*=}" ;; esac
  done
}

# The block device with a given serial number; the host may attach disks in any order, and late. An enclave that
# has no disks holds them as files of its second, measured ramdisk.
disk() {
  if [ -f "/disks/$1.img" ]; then
    loop=$(losetup -f)
    losetup -r "$loop" "/disks/$1.img"
    echo "$loop"
    return 0
  fi
  for _ in $(seq 100); do
    for device in /sys/block/vd*; do
      if [ -r "$device/serial" ] && [ "$(cat "$device/serial")" = "$1" ]; then
        echo "/dev/${device##*/}"
        return 0
      fi
    done
    sleep 0.1
  done
  stop "no disk with the serial number $1"
}

# The node of a mapped disk; there is no udev to link names.
mapped() {
  for device in /sys/block/dm-*; do
    if [ "$(cat "$device/dm/name")" = "$1" ]; then echo "/dev/${device##*/}"; fi
  done
}

# open_disk NAME: map the disk under the root, block count and salt of quotary.NAME.
open_disk() {
  pin=$(value "quotary.$1")
  if ! echo "$pin" | grep -Eqx '[0-9a-f]{64}:[1-9][0-9]{0,11}:[0-9a-f]{64}' || [ "${#pin}" -gt 142 ]; then
    stop "the command line does not pin the disk $1"
  fi
  root=${pin%%:*}
  salt=${pin##*:}
  blocks=${pin#*:}
  blocks=${blocks%:*}
  device=$(disk "$1")
  dmsetup create "$1" --readonly --noudevsync --noudevrules --table \
    "0 $((blocks * 8)) verity 1 $device $device 4096 4096 $blocks $((blocks + 1)) sha256 $root $salt 1 panic_on_corruption"
}

open_disk rootfs
mount -t erofs -o ro,nodev,nosuid "$(mapped rootfs)" /root
if [ -n "$(value quotary.runtime)" ]; then
  open_disk runtime
  mount -t erofs -o ro,nodev,nosuid "$(mapped runtime)" /root/srv/runtime
fi
if [ -n "$(value quotary.model)" ]; then
  open_disk model
  mount -t erofs -o ro,nodev,nosuid,noexec "$(mapped model)" /root/srv/model
fi

# The next PID 1 finds the policy by the name of the file behind its device.
if [ -f /disks/policy.img ]; then disk policy > /dev/null; fi

ip link set lo up
network=$(value quotary.network)
if [ -n "$network" ]; then
  ip link set eth0 up
  ip addr add "${network%,*}" dev eth0
  ip route add default via "${network#*,}"
fi

mount -t tmpfs -o nosuid,nodev,noexec,mode=0755 run /root/run
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmp /root/tmp
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
trap - EXIT
exec switch_root /root /usr/sbin/quotary-init
