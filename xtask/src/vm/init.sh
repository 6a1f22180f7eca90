#!/busybox/busybox sh
# The first process of a guest of `cargo xtask vm`: it makes a small machine, runs /command, and
# turns the machine off. Two virtio ports lead out: the first takes the command's output, the
# second what became of it. Whatever is said here goes to the console, which is shown when the
# guest fails.

/busybox/busybox --install -s /busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox
export HOME=/root USER=root LC_ALL=C

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ulimit -n 65536
ip link set lo up

modprobe -a virtio_pci virtio_console
# A port's node is there a moment before the port can be opened.
can_open() {
    [ -c "$1" ] && (: >"$1") 2>/dev/null
}
for port in /dev/vport0p1 /dev/vport0p2; do
    tries=0
    until can_open $port; do
        tries=$((tries + 1))
        # 10 s or more: its device is missing.
        [ $tries -lt 200 ] || { echo "init: $port can't be opened" && poweroff -f; }
        sleep 0.05
    done
done
exec 3>/dev/vport0p2

uptime() {
    read -r up rest </proc/uptime
    echo "$up"
}

echo "started $(uptime)" >&3
sh /command </dev/null >/dev/vport0p1 2>&1 3>&-
status=$?
echo "ended $(uptime) $status" >&3
poweroff -f
