# shellcheck shell=sh
# Parameters and modules of the kernel. Those of the network belong to each container;
# all others are the host's where the machine has no kernel of its own.

sysctl_file=/etc/sysctl.d/99-zz-bake-baseline.conf
modules_file=/etc/modprobe.d/bake-baseline.conf

# sysctl_file_of KEY sets p; it fails if the key is not there or cannot be set here.
sysctl_file_of() {
	old_ifs=$IFS IFS=.
	# shellcheck disable=SC2086 # the words of a key
	set -- $1
	IFS=/
	p="/proc/sys/$*"
	IFS=$old_ifs
	[ -w "$p" ]
}
# sysctl_value KEY sets v, likewise.
sysctl_value() { sysctl_file_of "$1" && v=$(cat "$p"); }

# learn_parameters keeps "FILE:VALUE" lines of the parameters that rules ask about. The shell
# itself cannot read them: it reads byte by byte, and gets the first alone.
learn_parameters() {
	parameters='' noted=''
	wanted kernel- "$@" || wanted net- "$@" || return 0
	for rule; do
		case $rule in kernel-* | net-*) of_rule note_parameters "$rule" ;; esac
	done
	# shellcheck disable=SC2086 # a list
	[ -z "$noted" ] || parameters=$(grep -H '' $noted 2>/dev/null)
}
note_parameters() {
	while [ $# -gt 0 ]; do
		! sysctl_file_of "$1" || noted="$noted $p"
		shift 2
	done
}

# parameters KEY VALUES... passes if each key has one of its values, which a | stands
# between. A key that is not there does not count, but one has to be.
parameters() {
	missing='' some_there=
	while [ $# -gt 0 ]; do
		if sysctl_file_of "$1"; then
			some_there=yes
			values_of "$p:" "$parameters" || error "cannot read $p"
			case "|$2|" in *"|$v|"*) ;; *) complain "${p#/proc/sys/} = $v" ;; esac
		else
			missing="$missing${missing:+, }$1"
		fi
		shift 2
	done
	[ -n "$some_there" ] || na "cannot be set on this machine: $missing"
	verdict "$bad"
}

# set_parameters KEY VALUES... sets each key to the first of its values, unless it has
# one of them, and keeps it so.
set_parameters() {
	while [ $# -gt 0 ]; do
		if sysctl_value "$1" 2>/dev/null; then
			case "|$2|" in
			*"|$v|"*) ;;
			*)
				v=${2%%|*}
				sysctl -qw "$1=$v" || return 1
				;;
			esac
			keep "$sysctl_file" 644 "^$(printf %s "$1" | sed 's/\./\\./g') *=" "$1 = $v" || return 1
		fi
		shift 2
	done
}

# of_rule COMMAND RULE runs it with the parameters of a rule.
of_rule() {
	v4=net.ipv4.conf v6=net.ipv6.conf
	case $2 in
	kernel-aslr) set -- "$1" kernel.randomize_va_space 2 ;;
	kernel-ptrace) set -- "$1" kernel.yama.ptrace_scope '1|2|3' ;;
	kernel-pointers) set -- "$1" kernel.kptr_restrict '1|2' kernel.dmesg_restrict 1 ;;
	kernel-bpf) set -- "$1" kernel.unprivileged_bpf_disabled '1|2' net.core.bpf_jit_harden '2|1' ;;
	kernel-perf) set -- "$1" kernel.perf_event_paranoid '2|3|4' ;;
	kernel-sysrq) set -- "$1" kernel.sysrq '0|4|16|176|438' ;;
	kernel-kexec) set -- "$1" kernel.kexec_load_disabled 1 ;;
	kernel-links) set -- "$1" fs.protected_hardlinks 1 fs.protected_symlinks 1 fs.protected_fifos '1|2' fs.protected_regular '2|1' ;;
	net-forwarding) set -- "$1" net.ipv4.ip_forward 0 $v6.all.forwarding 0 ;;
	net-redirects)
		set -- "$1" $v4.all.send_redirects 0 $v4.default.send_redirects 0 $v4.all.accept_redirects 0 $v4.default.accept_redirects 0 \
			$v4.all.secure_redirects 0 $v4.default.secure_redirects 0 $v6.all.accept_redirects 0 $v6.default.accept_redirects 0
		;;
	net-source-route)
		set -- "$1" $v4.all.accept_source_route 0 $v4.default.accept_source_route 0 $v6.all.accept_source_route '0|-1' $v6.default.accept_source_route '0|-1'
		;;
	net-rp-filter) set -- "$1" $v4.all.rp_filter '2|1' $v4.default.rp_filter '2|1' ;;
	net-martians) set -- "$1" $v4.all.log_martians 1 $v4.default.log_martians 1 ;;
	net-syncookies) set -- "$1" net.ipv4.tcp_syncookies '1|2' ;;
	net-icmp) set -- "$1" net.ipv4.icmp_echo_ignore_broadcasts 1 net.ipv4.icmp_ignore_bogus_error_responses 1 ;;
	net-ipv6-ra) set -- "$1" $v6.all.accept_ra 0 $v6.default.accept_ra 0 ;;
	esac
	"$@"
}

check_kernel_aslr() { own_kernel "the kernel" && of_rule parameters kernel-aslr; }
fix_kernel_aslr() { of_rule set_parameters kernel-aslr; }
check_kernel_ptrace() { own_kernel "the kernel" && of_rule parameters kernel-ptrace; }
fix_kernel_ptrace() { of_rule set_parameters kernel-ptrace; }
check_kernel_pointers() { own_kernel "the kernel" && of_rule parameters kernel-pointers; }
fix_kernel_pointers() { of_rule set_parameters kernel-pointers; }
check_kernel_bpf() { own_kernel "the kernel" && of_rule parameters kernel-bpf; }
fix_kernel_bpf() { of_rule set_parameters kernel-bpf; }
check_kernel_perf() { own_kernel "the kernel" && of_rule parameters kernel-perf; }
fix_kernel_perf() { of_rule set_parameters kernel-perf; }
check_kernel_sysrq() { own_kernel "the kernel" && of_rule parameters kernel-sysrq; }
fix_kernel_sysrq() { of_rule set_parameters kernel-sysrq; }
check_kernel_kexec() { own_kernel "the kernel" && of_rule parameters kernel-kexec; }
fix_kernel_kexec() { of_rule set_parameters kernel-kexec; }
check_kernel_links() { own_kernel "the kernel" && of_rule parameters kernel-links; }
fix_kernel_links() { of_rule set_parameters kernel-links; }

check_net_forwarding() {
	for c in dockerd containerd kubelet podman crio; do
		! have $c || na "the machine runs containers ($c), which are reached by forwarding"
	done
	of_rule parameters net-forwarding
}
fix_net_forwarding() { of_rule set_parameters net-forwarding; }
check_net_redirects() { of_rule parameters net-redirects; }
fix_net_redirects() { of_rule set_parameters net-redirects; }
check_net_source_route() { of_rule parameters net-source-route; }
fix_net_source_route() { of_rule set_parameters net-source-route; }
check_net_rp_filter() { of_rule parameters net-rp-filter; }
fix_net_rp_filter() { of_rule set_parameters net-rp-filter; }
check_net_martians() { of_rule parameters net-martians; }
fix_net_martians() { of_rule set_parameters net-martians; }
check_net_syncookies() { of_rule parameters net-syncookies; }
fix_net_syncookies() { of_rule set_parameters net-syncookies; }
check_net_icmp() { of_rule parameters net-icmp; }
fix_net_icmp() { of_rule set_parameters net-icmp; }
check_net_ipv6_ra() { of_rule parameters net-ipv6-ra; }
fix_net_ipv6_ra() { of_rule set_parameters net-ipv6-ra; }

# unloadable MODULE... passes if none is loaded or can be.
unloadable() {
	own_kernel "the kernel"
	need modprobe lsmod
	loaded=$(lsmod 2>&1) || error "lsmod fails: $loaded"
	none "$(for m; do
		name=$m
		case $m in *-*) name=${m%%-*}_${m#*-} ;; esac # the kernel's own spelling
		case "
$loaded" in *"
$name "*) echo "$m is loaded" ;; esac
		modprobe -n -v "$m" 2>&1 | grep -qE 'install /bin/(false|true)|not found' || echo "$m can be loaded"
	done)"
}
# forbid MODULE... The initramfs has a copy of the file, but loads none of these modules
# by itself.
forbid() {
	for m; do
		keep "$modules_file" 644 "^install $m " "install $m /bin/false" || return 1
		keep "$modules_file" 644 "^blacklist $m\$" "blacklist $m" || return 1
		! lsmod | grep -q "^$(printf %s "$m" | tr - _) " || modprobe -r "$m" || return 1
	done
}
check_module_filesystems() { unloadable cramfs freevxfs hfs hfsplus jffs2; }
fix_module_filesystems() { forbid cramfs freevxfs hfs hfsplus jffs2; }
check_module_protocols() { unloadable dccp tipc rds sctp; }
fix_module_protocols() { forbid dccp tipc rds sctp; }
check_module_usb_storage() { unloadable usb-storage; }
fix_module_usb_storage() { forbid usb-storage; }
