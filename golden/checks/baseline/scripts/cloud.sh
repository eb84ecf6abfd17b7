# shellcheck shell=sh
# What the cloud tells the machine.

check_cloud_imdsv2() {
	if have curl; then
		code=$(curl -s -m 3 -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/)
	elif have python3; then
		code=$(python3 -c '
import urllib.error, urllib.request
try:
    print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://169.254.169.254/latest/meta-data/", timeout=3).status)
except urllib.error.HTTPError as e:
    print(e.code)
except OSError:
    print("000")')
	else
		error "the machine has neither curl nor python3"
	fi
	case $code in
	401) pass ;;
	000) na "there is no metadata service" ;;
	200) fail "the metadata service answers without a token" ;;
	esac
	error "the metadata service answers $code"
}

# learn_cloud_init keeps "KEY VALUE" lines of cloud-init's configuration, of which the
# last file to set a key counts.
learn_cloud_init() {
	cloud_init='' cloud_init_error=''
	wanted cloud-init "$@" || return 0
	have cloud-init || return 0
	program=$(command -v cloud-init) && IFS= read -r python <"$program" || {
		cloud_init_error="cannot read cloud-init itself"
		return 0
	}
	python=${python#'#!'}
	# shellcheck disable=SC2086 # a program and its options
	cloud_init=$($python - 2>&1 <<'P'
import glob, yaml
merged = {}
for name in ["/etc/cloud/cloud.cfg"] + sorted(glob.glob("/etc/cloud/cloud.cfg.d/*.cfg")):
    with open(name) as f:
        part = yaml.load(f, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    if isinstance(part, dict):
        merged.update(part)
for key in ("ssh_pwauth", "disable_root", "ssh_deletekeys", "datasource_list"):
    print(key, str(merged.get(key, "unset")).replace("\n", " "))
P
) || cloud_init_error="cannot read the configuration of cloud-init: $(printf '%s\n' "$cloud_init" | tail -n 1)"
}
# cloud_init KEY sets v to the value of a key, or "unset".
cloud_init() { values_of "$1 " "$cloud_init" || error "the configuration of cloud-init says nothing of $1"; }
cloud_init_known() {
	have cloud-init || na "there is no cloud-init on this machine"
	[ -z "$cloud_init_error" ] || error "$cloud_init_error"
}
set_cloud_init() { printf '# Written by bake:baseline.\n%s\n' "$2" | put "/etc/cloud/cloud.cfg.d/99-zz-bake-baseline-$1.cfg" 644; }

check_cloud_init_pwauth() {
	cloud_init_known
	cloud_init ssh_pwauth
	case $v in False | false | no | unset | unchanged) ;; *) fail "ssh_pwauth: $v" ;; esac
	cloud_init disable_root
	case $v in True | true | 1 | unset) pass ;; esac
	fail "disable_root: $v"
}
fix_cloud_init_pwauth() {
	set_cloud_init login 'ssh_pwauth: false
disable_root: true'
}

check_cloud_init_hostkeys() {
	cloud_init_known
	cloud_init ssh_deletekeys
	case $v in True | true | 1 | unset) pass ;; esac
	fail "ssh_deletekeys: $v"
}
fix_cloud_init_hostkeys() { set_cloud_init keys 'ssh_deletekeys: true'; }

modes_cloud_init_data_mode() {
	"$1" 600 root root /var/lib/cloud/instance/user-data.txt /var/lib/cloud/instance/user-data.txt.i /var/lib/cloud/instance/obj.pkl \
		/var/lib/cloud/instance/cloud-config.txt /run/cloud-init/instance-data-sensitive.json
}
check_cloud_init_data_mode() {
	cloud_init_known
	modes_cloud_init_data_mode at_most
	verdict "$bad"
}
fix_cloud_init_data_mode() { modes_cloud_init_data_mode limit; }

check_cloud_init_datasource() {
	cloud_init_known
	cloud_init datasource_list
	set -f
	old_ifs=$IFS IFS="[]', "
	# shellcheck disable=SC2086 # the names in a list of Python's
	set -- $v
	IFS=$old_ifs
	set +f
	there=''
	for name; do
		case $name in
		'') ;;
		Ec2) there=$name ;;
		None) ;;
		*) complain "$name" ;;
		esac
	done
	[ -n "$there" ] && [ -z "$bad" ] || fail "datasource_list: $v"
	pass
}
fix_cloud_init_datasource() { set_cloud_init sources 'datasource_list: [ Ec2, None ]'; }

check_cloud_serial_root() {
	set --
	for dir in /etc/systemd/system /run/systemd/system /run/systemd/generator* /usr/lib/systemd/system /lib/systemd/system; do
		for f in "$dir"/*.service "$dir"/*.service.d/*.conf; do
			[ ! -f "$f" ] || set -- "$@" "$f"
		done
	done
	[ $# -gt 0 ] || error "there are no units of systemd"
	search '^[^#;]*(--autol|agetty[[:space:]](.*[[:space:]])?(--au|--a[[:space:]=]|-[8cEhiJLmnNRsUw]*a))' "$@"
	none "$list"
}
