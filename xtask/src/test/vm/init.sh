#!/bin/sh
# Process 1 of the test machine: mounts, loads modules, runs every test binary, says how each ended, turns off.

/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root TERM=dumb

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# The host asks first whether a machine boots at all.
if grep -q culvert.boot_only /proc/cmdline; then
    echo "CULVERT-VM booted"
    poweroff -f
fi
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 none /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
# Namespaces and pins are shared with what tests unshare, as systemd has it.
mount --make-rshared /
mkdir -p /run/netns

while read -r module; do
    insmod "/modules/$module" || echo "module $module: not loaded"
done </modules/order
ip link set lo up

export CULVERT_SMALL=1 CULVERT_BIN_DIR=/culvert RUST_BACKTRACE=1
# Emulated, and beside other work, a hundred dials at once take longer than the usual five seconds.
export CULVERT_DIAL_TIMEOUT=30s
# /etc/tests: a test binary and which of its tests, to a line.
while read -r test filters; do
    # shellcheck disable=SC2086 # Several words: a test runs that has one of them in its name.
    "/culvert/$test" --color never $filters </dev/null
    echo "CULVERT-VM $test exit $?"
done </etc/tests
echo "CULVERT-VM done"
poweroff -f
