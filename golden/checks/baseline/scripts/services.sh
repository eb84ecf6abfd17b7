# shellcheck shell=sh
# Services, ports and the firewall.

legacy='telnetd inetutils-telnetd telnet-server rsh-server rsh-redone-server rsh-client rsh talkd talk nis ypbind ypserv tftpd tftpd-hpa tftp-server xinetd openbsd-inetd'
check_service_legacy() {
	packages_known
	for line in $packages; do
		case " $legacy " in *" $line "*) complain "$line" ;; esac
	done
	none "$bad"
}
fix_service_legacy() {
	# shellcheck disable=SC2046,SC2086 # lists
	set -- $(installed $legacy)
	if [ "$family" = deb ]; then
		apt purge "$@"
	else
		dnf -yq remove "$@" >/dev/null
	fi
}

unneeded='avahi-daemon.service avahi-daemon.socket cups.service cups.socket rpcbind.service rpcbind.socket bluetooth.service autofs.service isc-dhcp-server.service dhcpd.service slapd.service snmpd.service debug-shell.service'
clocks='chrony.service chronyd.service systemd-timesyncd.service ntpsec.service ntp.service ntpd.service'
# learn_units keeps "UNIT STATE" lines of the units that rules ask about, in units.
learn_units() {
	units='' units_error=''
	wanted service- "$@" || wanted mount-tmp "$@" || wanted audit- "$@" || wanted time-sync "$@" || wanted firewall "$@" ||
		wanted pkg-auto "$@" || return 0
	# shellcheck disable=SC2086 # lists
	units=$(systemctl list-unit-files --no-legend --plain multi-user.target ctrl-alt-del.target tmp.mount auditd.service \
		nftables.service firewalld.service ufw.service dnf-automatic.timer dnf-automatic-install.timer $clocks $unneeded 2>/dev/null) || units=
	[ -n "$units" ] || units_error="systemctl fails"
}
units_known() { [ -z "$units_error" ] || error "$units_error"; }
# state_of UNIT sets v to the state of its file, or to nothing.
state_of() {
	units_known
	values_of "$1 " "$units" || return 0
	v=${v#"${v%%[! ]*}"}
	v=${v%% *}
}
# enabled UNIT... sets list to those that are started at boot.
enabled() {
	units_known
	list=
	while read -r unit state _; do
		case " $* $state" in
		*" $unit "*" enabled" | *" $unit "*" enabled-runtime")
			list="${list:+$list
}$unit"
			;;
		esac
	done <<X
$units
X
}
# unneeded sets list to those of the unneeded units that are started at boot. Whether scripts of
# System V are, which generate units, is not told by the state of these.
unneeded() {
	# shellcheck disable=SC2086 # a list
	enabled $unneeded
	for unit in $unneeded; do
		old_list=$list
		state_of "$unit"
		list=$old_list
		[ "$v" = generated ] && systemctl -q is-enabled "$unit" || continue
		list="${list:+$list
}$unit"
	done
}
check_service_unneeded() {
	unneeded
	none "$list"
}
fix_service_unneeded() {
	unneeded
	# shellcheck disable=SC2086 # a list
	systemctl -q disable --now $list
}

# learn_ports keeps "PROTOCOL/ADDRESS PORT" lines of what others can reach.
learn_ports() {
	ports_open='' ports_error=''
	wanted service-ports "$@" || wanted service-mta "$@" || return 0
	said=$(ss -Hltnu 2>&1) || {
		ports_error="ss fails: $said"
		return 0
	}
	ports_open=$(printf '%s\n' "$said" | awk 'NF {
		n = split($5, part, ":"); port = part[n]; host = $5; sub(/:[^:]*$/, "", host)
		if (host ~ /^(127\.|\[::1\]|\[::ffff:127)/ || host ~ /%lo$/) next
		line = $1 "/" host " " port
		if (!seen[line]++) print line
	}') || ports_error="awk fails"
}
# ssh_ports sets ports to those that sshd is told to use.
ssh_ports() {
	ports=
	while read -r user value; do
		[ "$user" != nobody ] || ports="${ports:+$ports }$value"
	done <<X
${sshd_port:-}
X
	ports=${ports:-22}
}
check_service_ports() {
	need ss
	[ -z "$ports_error" ] || error "$ports_error"
	ssh_ports
	while read -r address port; do
		case $address:$port in
		: | udp*:68 | udp*:546) continue ;; # nothing, and DHCP
		tcp*) case " $ports " in *" $port "*) continue ;; esac ;;
		esac
		complain "$address:$port"
	done <<X
$ports_open
X
	none "$bad"
}

check_service_mta_local() {
	need ss
	[ -z "$ports_error" ] || error "$ports_error"
	while read -r address port; do
		case $address:$port in tcp*:25 | tcp*:465 | tcp*:587) complain "$address:$port" ;; esac
	done <<X
$ports_open
X
	none "$bad"
}
fix_service_mta_local() {
	have postconf || {
		echo "this is not Postfix: bind it to 127.0.0.1 yourself"
		return 1
	}
	postconf -e inet_interfaces=loopback-only && systemctl restart postfix
}

check_service_failed() {
	list=$(systemctl --failed --no-legend --plain 2>&1) || error "systemctl fails: $list"
	[ -n "$list" ] || pass
	while read -r unit _; do complain "$unit"; done <<X
$list
X
	none "$bad"
}

check_service_ctrl_alt_del() {
	state_of ctrl-alt-del.target
	[ "$v" = masked ] || fail "ctrl-alt-del.target is ${v:-not masked}"
	pass
}
fix_service_ctrl_alt_del() { systemctl -q mask ctrl-alt-del.target; }

firewall_file=/etc/nftables/bake-baseline.nft
firewall_main() { if [ "$family" = deb ]; then echo /etc/nftables.conf; else echo /etc/sysconfig/nftables.conf; fi; }
check_firewall() {
	have nft || fail "there is no nftables"
	list=$(nft list ruleset 2>&1) || error "nft fails: $list"
	printf '%s\n' "$list" | grep -qE 'hook input.*policy drop' || fail "no input chain has the policy drop"
	enabled nftables.service firewalld.service ufw.service
	[ -n "$list" ] || fail "nothing loads the rules after a reboot"
	pass
}
fix_firewall() {
	install nftables || return 1
	main=$(firewall_main)
	[ -f "$main" ] || {
		echo "there is no $main"
		return 1
	}
	ssh_ports
	ports=$(printf %s "$ports" | tr " " ,)
	put "$firewall_file" 644 <<X || return 1
# Written by bake:baseline.
table inet bake_baseline
delete table inet bake_baseline
table inet bake_baseline {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif lo accept
		meta l4proto { icmp, ipv6-icmp } accept
		udp sport 67 udp dport 68 accept
		udp dport 546 accept
		tcp dport { $ports } accept
	}
}
X
	said=$(nft -c -f "$firewall_file" 2>&1) || {
		rm -f "$firewall_file"
		echo "nft refuses the rules: $said"
		return 1
	}
	grep -qxF "include \"$firewall_file\"" "$main" || replace "$main" "$(cat "$main"; printf 'include "%s"\n.' "$firewall_file")" || return 1
	nft -f "$firewall_file" && systemctl -q enable nftables
}
undo_firewall() {
	[ -e "$firewall_file" ] || return 0
	main=$(firewall_main)
	[ ! -f "$main" ] || replace "$main" "$(grep -vxF "include \"$firewall_file\"" "$main"; echo .)"
	rm -f "$firewall_file"
	nft delete table inet bake_baseline 2>/dev/null
}
