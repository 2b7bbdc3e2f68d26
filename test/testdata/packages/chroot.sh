# chroot.sh DIR SCRIPT FILE... runs SCRIPT with the FILEs in a copy of this machine's root, of which nothing is
# left: a mount namespace, a network and processes of their own, and an overlay on a file system in memory.
set -eu
dir=$1 script=$2
shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
cp "$script" "$@" tmp/
# As in a chroot of an installer: no systemd runs, and nothing may be started.
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
# A unit of another package that systemd complains about, as any machine may have one: it is none of the test's business.
printf '[Unit]\nOdd=1\n[Service]\nType=odd\nExecStart=/no/such/program\n' >usr/lib/systemd/system/stranger.service
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sf /usr/lib/systemd/system/stranger.service etc/systemd/system/multi-user.target.wants/
rm -f var/lib/man-db/auto-update # an index of all manuals at each step: seconds for nothing
ip link set lo up
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
	chroot . /bin/bash -eu "/tmp/$(basename "$script")"
