# boot.sh DIR SCRIPT UNITS HACHECK runs SCRIPT under a systemd of its own, process 1 of namespaces of which nothing is
# left, with the units of the directory UNITS and the binary HACHECK. DIR/out is what SCRIPT prints, and /out there.
# Without HACHECK nothing of hacheck is there, and SCRIPT finds the files of UNITS, packages, in /run/packages.
set -eu
dir=$1
case $# in
[34])
	# A control group of its own, whose root systemd takes for that of the machine.
	mount --make-rprivate /
	mkdir -p "$dir/out" "$dir/group" "$dir/root"
	mount -t cgroup2 cgroup2 "$dir/group"
	group=$dir/group$(sed -n 's/^0:://p' /proc/self/cgroup)/hacheck-test-$$
	mkdir "$group"
	trap 'find "$group" -depth -type d -exec rmdir {} +' EXIT
	sh -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$group" unshare --mount --pid --fork --kill-child --cgroup --net --uts --ipc bash "$0" "$1" "$2" "$3" "${4-}" boot
	exit
	;;
esac
root=$dir/root
mount -t tmpfs tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/all"
mount -t overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" overlay "$root/all"
cd "$root/all"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do cp -a "/dev/$device" dev/; done
mkdir -p dev/shm dev/pts dev/mqueue dev/hugepages out
mount -t devpts devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount --bind "$dir/out" out
ip link set lo up

# Only these units exist, so that it does not matter which are installed on this machine.
units=run/units
mkdir -p $units/default.target.wants $units/hacheck.service.d
for target in default sysinit basic sockets multi-user network shutdown umount final; do
	printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"
done
cp "$2" run/script.sh
cat >$units/script.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/bash -eu /run/script.sh
ExecStopPost=systemctl --force --force poweroff
StandardOutput=file:/out/out
StandardError=file:/out/out
END
ln -s ../script.service $units/default.target.wants/
# There is no journal.
printf '[Service]\nStandardOutput=append:/out/log\nStandardError=append:/out/log\n' >$units/hacheck.service.d/log.conf
# The administrator's own, which come first.
mount -t tmpfs tmpfs etc/systemd/system
# "systemctl reboot" is as systemd itself has it. The units of this machine's packages do not matter.
cp usr/lib/systemd/system/reboot.target usr/lib/systemd/system/systemd-reboot.service $units/
mount -t tmpfs tmpfs usr/lib/systemd/system
if [ -n "$4" ]; then
	cp "$3"/* $units/
	cp "$4" usr/bin/hacheck
	grep -q ^hacheck: etc/passwd || echo 'hacheck:x:64333:64333::/:/usr/sbin/nologin' >>etc/passwd
	grep -q ^hacheck: etc/group || echo 'hacheck:x:64333:' >>etc/group
	chroot . install -d -m 0750 -o hacheck -g hacheck /var/spool/hacheck
	printf 'rlimit_nofile: 1000\n' >etc/hacheck.yaml
	rm -f etc/default/hacheck
else
	cp -r "$3" run/packages
	rm -f usr/sbin/policy-rc.d
	rm -f var/lib/man-db/auto-update # an index of all manuals at each step
fi
# systemd makes mount namespaces for its services, which needs a root that is one itself.
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=test SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units:/usr/lib/systemd/system PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --show-status=no --log-target=null
