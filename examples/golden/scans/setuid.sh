# Reports each set-user-ID program as a test in the Test Anything Protocol: it passes if it
# is on the list.
allowed="chfn chsh dbus-daemon-launch-helper gpasswd mount newgrp passwd ssh-keysign su sudo umount"
n=0
for program in $(find / -xdev -type f -perm -4000 | sort); do
	n=$((n + 1))
	ok="not ok"
	for name in $allowed; do
		[ "${program##*/}" != "$name" ] || ok=ok
	done
	echo "$ok $n - $program"
done
echo "1..$n"
