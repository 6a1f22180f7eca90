# trial.sh PROGRAM ROOT: runs an unpacked image. In mount, network and process namespaces made for
# it, so mounts, sockets, rules and processes end with it.
program=$1
root=$2
PATH=$PATH:/usr/sbin:/sbin
# By its place: inside, PATH is the container's.
chroot=$(command -v chroot)

fail() {
    echo "trial: $program: $*" >&2
    cat "$config/log" >&2
    exit 1
}

# What /etc/… of a container has is a ConfigMap: here a folder beside the image.
config=$root.config
mkdir -p "$config"
: >"$config/log"

mount_root() {
    mount --bind "$root" "$root"
    mount --bind "$config" "$root/$1"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev"
    : >"$root/dev/null"
    mount --bind /dev/null "$root/dev/null"
    # The lock of iptables is a file that the manifests mount.
    mount -t tmpfs tmpfs "$root/run"
    : >"$root/run/xtables.lock"
    # Of this network namespace.
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -o remount,bind,ro "$root"
    if touch "$root/tmp/file" 2>/dev/null; then fail "the root can be written"; fi
}

# with_rights CAPABILITIES USER COMMAND…: no more than these, whoever the user is. chroot needs
# three of its own, and the program has none of them in effect but for root. It takes the place of
# the shell that calls it, so call it in one of its own: $(…), a pipe, or the background.
with_rights() {
    rights=$1
    user=$2
    shift 2
    exec setpriv --bounding-set="-all,$rights" --inh-caps=-all \
        env -i PATH="$path" "$chroot" --userspec="$user" "$root" "$@"
}

# until_true WHAT COMMAND…: for up to a minute, on machines that have other things to do.
until_true() {
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ]; then fail "$what"; fi
        sleep 0.2
    done
}

healthy() {
    bash -c 'exec 3<>/dev/tcp/127.0.0.1/10256 && printf "GET /healthz HTTP/1.0\r\n\r\n" >&3 && grep -q "200 OK" <&3'
}

# A Service without endpoints has a rule that refuses.
has_rules() {
    case $1 in
    nftables) nft list table ip kube-proxy ;;
    iptables-nft) nft list table ip filter ;;
    iptables-legacy) iptables-legacy-save -t filter ;;
    esac 2>/dev/null | grep -q 10.96.0.9
}

answers() {
    [ "$(dig +short +time=1 +tries=1 "$2" "@$1" example.test A)" = 192.0.2.7 ]
}

case $program in
switchyard-dns)
    ip link set lo up
    printf '.:53 {\n    hosts {\n        192.0.2.7 example.test\n    }\n    health\n    ready\n    errors\n}\n' >"$config/Corefile"
    path=/usr/bin
    mount_root etc/coredns
    own=+net_bind_service,+sys_chroot,+setuid,+setgid
    with_rights "$own" 65532:65532 /usr/bin/switchyard-dns -version | grep -q switchyard-dns || fail "no version"
    # By the name that CoreDNS has in its image, as its Deployment starts it.
    with_rights "$own" 65532:65532 /coredns -conf /etc/coredns/Corefile >"$config/log" 2>&1 &
    server=$!
    until_true "no answer at port 53" answers 127.0.0.1 +notcp
    answers 127.0.0.1 +tcp || fail "no answer over TCP"
    grep -q '^Uid:[[:space:]]*65532' "$root/proc/$server/status" || fail "it runs as another user"
    ;;
switchyard-proxy)
    ip link set lo up
    cat >"$config/node.yaml" <<'END'
apiVersion: v1
kind: Node
metadata: {name: node1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.9
  clusterIPs: [10.96.0.9]
  ipFamilies: [IPv4]
  ports: [{port: 80, protocol: TCP, targetPort: 80}]
END
    path=/usr/bin
    mount_root var/lib/kube-proxy
    own=+net_admin,+sys_chroot,+setuid,+setgid
    for kind in nft legacy; do
        path=/usr/lib/switchyard/iptables-$kind:/usr/bin
        for tool in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
            version=$(with_rights "$own" 0:0 "/usr/lib/switchyard/iptables-$kind/$tool" --version)
            case $kind/$version in
            nft/*nf_tables*|legacy/*legacy*) ;;
            *) fail "$kind/$tool is $version" ;;
            esac
        done
    done
    # By the name that kube-proxy has in its image, as kubeadm's DaemonSet starts it.
    with_rights "$own" 0:0 /usr/local/bin/kube-proxy --version | grep -q switchyard-proxy || fail "no version"
    for way in nftables iptables-nft iptables-legacy; do
        if has_rules "$way"; then fail "$way: there are rules before it starts"; fi
        path=/usr/bin
        if [ "$way" != nftables ]; then
            path=/usr/lib/switchyard/$way:/usr/bin
            own=+net_admin,+net_raw,+sys_chroot,+setuid,+setgid
        fi
        with_rights "$own" 0:0 /usr/bin/switchyard-proxy --proxy-mode "${way%-*}" --manifests /var/lib/kube-proxy \
            --hostname-override node1 --cluster-cidr 10.244.0.0/16 --conntrack-max-per-core 0 >"$config/log" 2>&1 &
        until_true "$way: it does not become healthy" healthy
        has_rules "$way" || fail "$way: it wrote nothing"
        kill "$!"
        { wait "$!" || true; } 2>/dev/null
    done
    ;;
*)
    fail "an image nobody knows how to try"
    ;;
esac
echo "trial: $program: as it must be"
