# What a node's first process does, in its own network, mount and pid namespaces: it makes the machine look like a
# node, then becomes the container runtime.
#   sh node.sh STATE IPV6: the cluster's folder, and 1 where it has both families
set -eu
state=$1

# Sockets and namespaces of the node's own containers; the machine's are nobody's business here. An init system's
# resolv.conf is often a link into /run: let there be something at its end.
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock "$(dirname "$resolv")"
[ -e "$resolv" ] || : >"$resolv"
# Containers see what is mounted here later, and the other way round.
mount --make-rshared /

: >"$state/empty"
mount --bind "$state/empty" /etc/resolv.conf
for folder in var/log var/lib/cni var/lib/kubelet; do
  mkdir -p "$state/$folder" "/$folder"
  mount --bind "$state/$folder" "/$folder"
done

# kubelet writes these, and they are the whole machine's: it shall find them as it wants them and leave them alone.
mkdir -p "$state/sysctl"
for pair in vm.overcommit_memory=1 vm.panic_on_oom=0 kernel.panic=10 kernel.panic_on_oops=1; do
  name=${pair%=*}
  echo "${pair#*=}" >"$state/sysctl/$name"
  mount --bind "$state/sysctl/$name" "/proc/sys/$(echo "$name" | tr . /)"
done

# Of the node's own network only.
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
if [ "$2" = 1 ]; then
  echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
  echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables
fi

# A container runtime as first process would not reap what is left to it.
exec tini -s -g -- containerd --config "$state/containerd.toml"
