package baseline

import "bake/golden/findings"

const (
	critical = findings.Critical
	high     = findings.High
	medium   = findings.Medium
	low      = findings.Low
)

// Where a rule applies, if not everywhere.
const (
	kernel   = "machines with their own kernel"
	apt      = "Debian and Ubuntu"
	withCron = "machines with cron"
	withInit = "machines with cloud-init"
)

// table lists the rules in display order. The columns are: id, severity, level,
// title, rationale, fix, references to other standards, and where it applies.
//
// References: C is a section of CIS Debian Linux 12 1.1.0, R9 a number of the STIG for
// RHEL 9 (V2R9), U24 one of the STIG for Ubuntu 24.04 (V1R5), R a recommendation of
// ANSSI-BP-028 2.0, and DS a control of the DevSec Linux Baseline.
var table = []rule{
	{"ssh-root-login", high, 1, "Disable SSH root login", "Root logins cannot be traced to a person, and attackers already know the account name.", "PermitRootLogin no", "C 5.1.20, R9-255045, R33", ""},
	{"ssh-password-auth", critical, 1, "Disable SSH password authentication", "Passwords can be guessed; keys cannot.", "PasswordAuthentication no, also in Match blocks", "", ""},
	{"ssh-kbdint-auth", high, 1, "Disable SSH keyboard-interactive authentication", "Keyboard-interactive authentication usually asks for a password. Waive the rule if one-time codes are used.", "KbdInteractiveAuthentication no", "", ""},
	{"ssh-empty-passwords", critical, 1, "Disable SSH login with empty passwords", "Anyone could log in to an account without a password.", "PermitEmptyPasswords no", "C 5.1.19, R9-255040, U24-300031", ""},
	{"ssh-hostbased", medium, 1, "Disable SSH host-based authentication", "Whoever controls a trusted host could log in as any of its users.", "HostbasedAuthentication no, IgnoreRhosts yes", "C 5.1.10, C 5.1.11", ""},
	{"ssh-user-environment", medium, 1, "Disable SSH user environment processing", "Variables such as LD_PRELOAD can bypass the restrictions of a key.", "PermitUserEnvironment no", "C 5.1.21, R9-255085, U24-300031", ""},
	{"ssh-strict-modes", medium, 1, "Enable SSH StrictModes", "If others can write a user's key files, they can log in as that user.", "StrictModes yes", "R9-255160", ""},
	{"ssh-max-auth-tries", medium, 1, "Set SSH MaxAuthTries to 4 or less", "Limiting failed attempts per connection slows down guessing. A much lower limit locks out users with several keys in their agent.", "MaxAuthTries 4", "C 5.1.16", ""},
	{"ssh-login-grace", low, 1, "Set SSH LoginGraceTime to 60 seconds or less", "Connections that never log in tie up the server. 0 means no limit.", "LoginGraceTime 60", "C 5.1.13", ""},
	{"ssh-max-startups", low, 1, "Configure SSH MaxStartups", "Too many unauthenticated connections at once keep everyone else out.", "MaxStartups 10:30:60", "C 5.1.18", ""},
	{"ssh-idle", low, 1, "Set the SSH client alive timeout to 15 minutes or less", "Connections to clients that are gone stay open and can be hijacked.", "ClientAliveInterval 300, ClientAliveCountMax 3", "C 5.1.7, R9-255095, R9-255100, U24-600000, U24-600010", ""},
	{"ssh-x11", low, 1, "Disable SSH X11 forwarding", "A server needs no X11, and programs on it could spy on the user's display.", "X11Forwarding no", "R9-255155, U24-300022", ""},
	{"ssh-use-pam", medium, 1, "Enable PAM for SSH", "PAM enforces limits and lockouts and logs sessions. Without it, cloud users with a locked password cannot log in.", "UsePAM yes", "C 5.1.22, R9-255050, U24-500050", ""},
	{"ssh-log-level", medium, 1, "Configure SSH LogLevel", "Otherwise the log does not show who logged in with which key.", "LogLevel VERBOSE", "C 5.1.14, R9-255030", ""},
	{"ssh-ciphers", high, 1, "Disable weak SSH ciphers", "CBC modes, 3DES and RC4 can leak plaintext.", "remove weak ciphers from Ciphers", "C 5.1.6, R9-255065, U24-100820", ""},
	{"ssh-macs", medium, 1, "Disable weak SSH MAC algorithms", "With MD5, SHA-1 or short tags, changes in transit can go unnoticed.", "remove weak algorithms from MACs", "C 5.1.15, R9-255075, U24-100830", ""},
	{"ssh-kex", medium, 1, "Disable weak SSH key exchange algorithms", "Attacks on key exchanges that use SHA-1 are becoming practical.", "remove algorithms that use SHA-1 from KexAlgorithms", "C 5.1.12, U24-100840", ""},
	{"ssh-config-mode", medium, 1, "Restrict access to the SSH server configuration", "Whoever can write it can grant anyone access.", "chmod 600 and chown root:root /etc/ssh/sshd_config and /etc/ssh/sshd_config.d/*.conf", "C 5.1.1, R9-255115, R50", ""},
	{"ssh-hostkey-mode", critical, 1, "Restrict access to SSH private host keys", "Whoever has them can impersonate the machine.", "chmod 600 /etc/ssh/ssh_host_*_key", "C 5.1.2, R9-255120, R50", ""},
	{"ssh-forwarding", medium, 2, "Disable SSH forwarding", "Forwarding bypasses firewalls. Bastions, tunnels and remote editors need it.", "DisableForwarding yes", "C 5.1.8", ""},
	{"ssh-access-list", medium, 2, "Restrict SSH access with user or group lists", "Accounts that a package or a mistake has created then cannot log in. Users who log in later, for example through EC2 Instance Connect, must be listed too.", "AllowGroups with the group of the image's user", "C 5.1.4", ""},

	{"pam-nullok", high, 1, "Disable empty passwords in PAM", "Anyone could log in to an account without a password.", "remove nullok from pam_unix", "C 5.3.3.4.1, R9-611025, U24-300028", ""},
	{"pam-faillock", medium, 1, "Lock accounts after 5 failed password attempts", "Locking slows down guessing. Logins with keys do not count.", "pam_faillock with deny = 5 and unlock_time = 900", "C 5.3.2.2, C 5.3.3.1.1, R9-411075, U24-200610, R31", ""},
	{"pam-pwquality", medium, 1, "Require passwords of at least 14 characters", "Short passwords can be guessed.", "pam_pwquality with minlen = 14 and a dictionary", "C 5.3.1.3, C 5.3.3.2.2, R9-611090, U24-100600, U24-400320, R31, R68", ""},
	{"pam-hash", high, 1, "Use strong password hashing", "Weak hashes can be cracked quickly.", "ENCRYPT_METHOD YESCRYPT or SHA512; set new passwords for accounts with older hashes", "C 5.3.3.4.3, C 5.4.1.4, R9-611140, U24-400400, R68", ""},
	{"pam-pwhistory", low, 2, "Limit password reuse", "A leaked password could become valid again.", "pam_pwhistory with remember=24", "C 5.3.3.3.1", ""},
	{"pw-aging", low, 2, "Set password expiration to 365 days or less for new accounts", "A leaked password stops working. An account with an expired password cannot use keys or sudo either, so existing accounts are left alone.", "PASS_MAX_DAYS 365 in /etc/login.defs", "C 5.4.1.1, R9-411010, U24-400310, DS os-05", ""},
	{"umask-default", low, 2, "Set the default umask to 027", "New files are private by default. Scripts that create files for other users must set their mode.", "UMASK 027 in /etc/login.defs", "C 5.4.3.3, R9-412065, U24-300030, R36, DS os-05", ""},
	{"su-wheel", low, 2, "Restrict su to administrators", "Without membership in the group, another account's password is useless.", "pam_wheel with use_uid in /etc/pam.d/su", "C 5.2.7, R9-432035", ""},
	{"shell-timeout", low, 2, "Set a shell timeout of 15 minutes", "Anyone can use a shell that was left open.", "TMOUT=900 in /etc/profile.d", "C 5.4.3.2, R9-412035, U24-200060, R32", ""},

	{"sudo-files-mode", high, 1, "Restrict write access to the sudo configuration", "Whoever can write it can become root.", "chmod 440 /etc/sudoers and the files in /etc/sudoers.d; chmod 750 /etc/sudoers.d", "", ""},
	{"sudo-use-pty", medium, 1, "Require a pty for sudo commands", "Otherwise a command can type into the user's terminal after it has ended.", "Defaults use_pty", "C 5.2.2, R39", ""},
	{"sudo-authenticate", high, 1, "Require authentication for sudo", "With !authenticate, every user who may use sudo can become root without a password.", "remove !authenticate from sudoers", "C 5.2.4, C 5.2.5, R9-432025, U24-300021", ""},
	{"sudo-env", medium, 1, "Set secure_path and env_reset for sudo", "Otherwise a user's PATH or LD_PRELOAD could make sudo run the user's own programs as root.", "Defaults secure_path=…, and no !env_reset", "", ""},
	{"sudo-logfile", low, 2, "Configure a sudo log file", "A separate file is easier to keep and search. The journal has the same entries.", "Defaults logfile=/var/log/sudo.log", "C 5.2.3", ""},
	{"sudo-nopasswd", medium, 2, "Require a password for sudo", "Otherwise whoever gets into a session can become root. Users of cloud images have keys but no password: without NOPASSWD they cannot become root at all.", "set passwords for the users, and remove NOPASSWD from sudoers", "C 5.2.4, R9-611085, U24-300020, U24-300021", ""},

	{"account-uid0", critical, 1, "Ensure root is the only account with UID 0", "Any other account with UID 0 is root under a name that is rarely checked.", "remove the account or change its UID", "C 5.4.2.1, R9-411100", ""},
	{"account-empty-password", critical, 1, "Ensure no account has an empty password", "Anyone could log in to it.", "lock the password with passwd -l", "C 7.2.1, C 7.2.2, R9-611155, U24-300027", ""},
	{"account-root-locked", medium, 1, "Lock the root password", "Root is the account that attackers try first. Without a root password, there is no rescue shell on the serial console.", "usermod -L root", "C 5.4.2.4, U24-400110, R33", ""},
	{"account-system-shell", medium, 1, "Disable shells and passwords of system accounts", "Nobody but an attacker logs in as a service.", "usermod -s nologin", "C 5.4.2.7, R9-411035", ""},
	{"account-unique-ids", medium, 1, "Ensure names and IDs of users and groups are unique", "The kernel cannot tell accounts with the same ID apart.", "rename the account or change its ID", "C 7.2.5, C 7.2.6, C 7.2.7, R9-411030, R9-411110, DS os-07", ""},
	{"account-home-mode", medium, 1, "Restrict access to home directories", "They contain keys, tokens and shell histories.", "chmod 750, and chown to the user, unless the directory belongs to the system or is shared with other accounts", "C 7.2.9, R9-232050, R9-411065", ""},
	{"account-dotfiles", medium, 1, "Restrict write access to users' dot files", "Shells run them as the user at the next login. Files such as .rhosts and .netrc do not belong on a server.", "chmod go-w; remove .rhosts, .shosts, .netrc and .forward", "C 7.2.10, R50, DS os-09", ""},
	{"account-root-path", high, 1, "Ensure only root can write to directories in root's PATH", "Programs that others put there could be run as root.", "remove empty and relative entries, and directories that others can write to, from root's PATH", "C 5.4.2.5, DS os-04", ""},
	{"account-shadow-group", medium, 1, "Ensure the shadow group has no members", "Members can read all password hashes.", "gpasswd -d USER shadow", "C 7.2.4", ""},

	{"file-passwd-mode", high, 1, "Restrict write access to account files", "Whoever can write them can become root.", "chmod 644 /etc/passwd, /etc/group, /etc/shells", "C 7.1.1, C 7.1.3, R9-232055, R9-232075, R50, DS os-03", ""},
	{"file-shadow-mode", critical, 1, "Restrict access to password hashes", "Whoever has the hashes can crack them offline.", "chmod 640 /etc/shadow, /etc/gshadow", "C 7.1.5, C 7.1.7, R9-232065, R9-232270, R50, DS os-02", ""},
	{"file-world-writable", high, 1, "Ensure no file is world-writable", "Anyone could change files that others rely on.", "chmod o-w", "C 7.1.11, R54", ""},
	{"file-sticky-dirs", high, 1, "Set the sticky bit on world-writable directories", "Without it, anyone can delete or replace other users' files.", "chmod +t", "R9-232245, U24-600150, R54", ""},
	{"file-unowned", medium, 1, "Ensure every file has an owner", "The next account with the same ID would own the file.", "chown or remove the file", "C 7.1.12, R9-232250, R9-232255, R53", ""},
	{"file-suid", medium, 1, "Restrict set-user-ID and set-group-ID programs to those from packages", "A privileged program that nobody updates can be used to become root.", "chmod u-s,g-s, or install the program from a package", "R56, DS os-06", ""},
	{"file-system-dirs", high, 1, "Restrict write access to system programs and configuration", "Whoever can write them can become root.", "chmod go-w and chown root", "R9-232190, R9-232205, U24-300009, U24-300012, R50", ""},
	{"file-log-mode", medium, 1, "Restrict access to login and cloud-init logs", "They show who logs in from where, and how the machine was set up at boot.", "chmod o-rwx", "C 6.1.4.1, R9-232030, DS os-11", ""},

	{"mount-dev-shm", medium, 1, "Mount /dev/shm with nodev and nosuid", "Every user can write there.", "mount it with nodev,nosuid", "C 1.1.2.2.2, C 1.1.2.2.3, R9-231110, R9-231120, DS os-15, DS os-16", kernel},
	{"mount-dev-shm-noexec", low, 2, "Mount /dev/shm with noexec", "Every user can write there. Some databases and browsers run programs from it.", "mount it with noexec", "C 1.1.2.2.4, R9-231115", kernel},
	{"mount-tmp", medium, 2, "Mount /tmp as a separate file system with nodev and nosuid", "Every user can write there. tmp.mount keeps the files in memory, so they are lost at reboot.", "enable tmp.mount and reboot", "C 1.1.2.1.2, C 1.1.2.1.3, R9-231125, R9-231135, R28", ""},

	{"kernel-aslr", high, 1, "Enable address space layout randomization (ASLR)", "Exploits need to know memory addresses.", "kernel.randomize_va_space = 2", "C 1.5.1, R9-213070, U24-700310, R9, DS sysctl-32", kernel},
	{"kernel-ptrace", medium, 1, "Restrict ptrace", "A compromised program could read keys and passwords from the memory of the same user's other programs.", "kernel.yama.ptrace_scope = 1", "C 1.5.2, R9-213080, R11, DS sysctl-35", kernel},
	{"kernel-pointers", medium, 1, "Restrict access to kernel addresses", "Kernel exploits need to know memory addresses.", "kernel.kptr_restrict = 1, kernel.dmesg_restrict = 1", "R9-213010, R9-213025, U24-600140, R9", kernel},
	{"kernel-bpf", medium, 1, "Disable unprivileged BPF", "BPF has been used to attack the kernel more than once.", "kernel.unprivileged_bpf_disabled = 1, net.core.bpf_jit_harden = 2", "R9-213075, R9-251045, R12, R9", kernel},
	{"kernel-perf", low, 1, "Restrict performance events", "Measurements can leak the data being processed.", "kernel.perf_event_paranoid = 2", "R9-213015, R9", kernel},
	{"kernel-sysrq", low, 1, "Disable the magic SysRq key", "Keys on the console could kill processes or dump memory.", "kernel.sysrq = 0", "R9, DS sysctl-30", kernel},
	{"kernel-kexec", medium, 2, "Disable kexec", "A kernel started this way bypasses the checks made at boot. Crash dumps and live patching need kexec.", "kernel.kexec_load_disabled = 1", "R9-213020", kernel},
	{"kernel-links", high, 1, "Enable link, FIFO and regular-file protections", "Otherwise programs of root that write to /tmp can be tricked into writing to other files.", "fs.protected_hardlinks = 1, fs.protected_symlinks = 1, fs.protected_fifos = 1, fs.protected_regular = 2", "R9-213030, R14, DS sysctl-34", kernel},

	{"net-forwarding", medium, 1, "Disable IP forwarding", "The machine would route traffic between networks. Machines that run containers, NAT or a VPN need it.", "net.ipv4.ip_forward = 0, net.ipv6.conf.all.forwarding = 0", "C 3.3.1, R9-253075, R12, DS sysctl-01, DS sysctl-19", "machines without a container runtime"},
	{"net-redirects", medium, 1, "Disable sending and accepting ICMP redirects", "A neighbour could redirect traffic through itself.", "net.ipv4.conf.{all,default}.{send,accept,secure}_redirects = 0, and the same for accept_redirects of IPv6", "C 3.3.2, C 3.3.5, C 3.3.6, R9-253015, R9-253065, R12, DS sysctl-14, DS sysctl-15, DS sysctl-16, DS sysctl-20", ""},
	{"net-source-route", high, 1, "Disable source-routed packets", "They can bypass firewalls.", "net.ipv4.conf.{all,default}.accept_source_route = 0, and the same for IPv6", "C 3.3.8, R9-253020, R12, DS sysctl-13", ""},
	{"net-rp-filter", medium, 1, "Enable reverse path filtering", "A spoofed source address can bypass rules that trust addresses. 2 (loose) also works with several network interfaces.", "net.ipv4.conf.{all,default}.rp_filter = 2", "C 3.3.7, R9-253035, R12, DS sysctl-02", ""},
	{"net-martians", low, 1, "Log packets with impossible source addresses", "They are signs of an attack.", "net.ipv4.conf.{all,default}.log_martians = 1", "C 3.3.9, R9-253025, DS sysctl-17", ""},
	{"net-syncookies", medium, 1, "Enable TCP SYN cookies", "They keep the machine reachable during SYN floods.", "net.ipv4.tcp_syncookies = 1", "C 3.3.10, R9-253010, U24-600190, R12, DS sysctl-11", ""},
	{"net-icmp", low, 1, "Ignore ICMP broadcasts and bogus error responses", "The machine could be used to flood others, and its log could be filled up.", "net.ipv4.icmp_echo_ignore_broadcasts = 1, net.ipv4.icmp_ignore_bogus_error_responses = 1", "C 3.3.4, R9-253055, DS sysctl-03, DS sysctl-04", ""},
	{"net-ipv6-ra", low, 2, "Disable IPv6 router advertisements", "A neighbour could pose as a router. On AWS, the IPv6 default route comes only from router advertisements.", "net.ipv6.conf.{all,default}.accept_ra = 0", "C 3.3.11, R9-254010, DS sysctl-25", ""},

	{"module-filesystems", low, 1, "Disable unused file systems", "Their code is old, and a crafted disk or image can exploit it to attack the kernel.", "install lines for cramfs, freevxfs, hfs, hfsplus and jffs2 in /etc/modprobe.d", "C 1.1.1.1, C 1.1.1.3, R9-231195, DS os-10", kernel},
	{"module-protocols", medium, 1, "Disable unused network protocols", "Any user could load them, and they have been used to attack the kernel.", "install lines for dccp, tipc, rds and sctp in /etc/modprobe.d", "C 3.2.1, C 3.2.4, R9-213060", kernel},
	{"module-usb-storage", low, 2, "Disable USB storage", "USB disks can carry data out and malware in. EC2 instances have none.", "an install line for usb-storage in /etc/modprobe.d", "C 1.1.1.9, R9-291010, U24-300039", kernel},

	{"service-legacy", high, 1, "Remove unencrypted network services", "telnet, rsh, NIS and TFTP send everything in the clear.", "remove the packages", "", ""},
	{"service-unneeded", medium, 1, "Disable unneeded desktop and network services", "A service that does not run cannot be attacked.", "systemctl disable --now", "", ""},
	{"service-ports", high, 1, "Ensure only SSH listens on the network", "Every other open port can be attacked and needs to be maintained. Waive the rule for the services that the image is for.", "stop the service, bind it to 127.0.0.1, or waive the rule", "", ""},
	{"service-mta-local", medium, 1, "Configure the mail server for local delivery only", "Open mail relays are found within hours.", "inet_interfaces = loopback-only in Postfix", "", ""},
	{"service-failed", medium, 1, "Ensure no service has failed", "A service that failed to start does not protect the machine.", "systemctl --failed", "", ""},
	{"service-ctrl-alt-del", low, 1, "Disable Ctrl-Alt-Del", "Access to the console alone should not be enough to reboot the machine.", "systemctl mask ctrl-alt-del.target", "", ""},
	{"firewall", medium, 2, "Configure a host firewall that allows only SSH", "It protects the machine if a security group is misconfigured. Machines that run containers need rules of their own.", "nftables with an input chain whose policy is drop", "", ""},

	{"pkg-signed", critical, 1, "Require signed packages", "Otherwise anyone between the machine and the mirror can have packages of their own installed.", "remove trusted=yes and AllowUnauthenticated; set gpgcheck=1 in dnf.conf and in the repositories", "R9-214015, R9-214025, R59", ""},
	{"pkg-valid-until", medium, 1, "Reject expired package indexes", "Anyone between the machine and the mirror could hide updates. Waive the rule for a frozen mirror.", "remove check-valid-until=no", "", apt},
	{"pkg-updates", high, 1, "Install all updates", "The vulnerabilities that they fix are public.", "apt-get dist-upgrade, dnf upgrade --security; for held packages: apt-mark unhold", "R9-211015, R61", ""},
	{"pkg-kernel-current", medium, 1, "Run the newest installed kernel", "Kernel updates take effect only after a reboot.", "reboot", "", kernel},
	{"pkg-auto-updates", low, 2, "Enable automatic updates", "Long-lived machines do not miss updates. Images that are rebuilt regularly get them that way.", "unattended-upgrades, dnf-automatic", "R61", ""},

	{"log-persistent", medium, 1, "Enable persistent logs", "Otherwise the events before a reboot are lost.", "Storage=persistent in journald.conf", "C 6.1.2.4", ""},
	{"log-limit", low, 1, "Limit the size of logs", "A full disk can stop the machine.", "SystemMaxUse=500M in journald.conf", "", ""},
	{"log-rsyslog-mode", low, 1, "Restrict access to rsyslog log files", "They show who logs in from where.", "$FileCreateMode 0640", "C 6.1.3.4, R71", "machines with rsyslog"},
	{"audit-enabled", medium, 2, "Enable auditd", "The audit log shows who did what.", "install and enable auditd", "C 6.2.1.1, C 6.2.1.2, R9-653010, R9-653015, U24-100400, U24-100410, R33, R73", kernel},
	{"audit-rules", medium, 2, "Audit changes to accounts, sudo and SSH", "Attackers change them to keep their access.", "watches in /etc/audit/rules.d", "C 6.2.3.8, R9-654245, U24-200300, R73", kernel},

	{"time-sync", medium, 1, "Enable time synchronization", "Certificates and logs depend on the right time.", "install and enable chrony", "C 2.3.1.1, R9-252010, R9-252015, U24-100700, R71", kernel},
	{"time-zone-utc", low, 2, "Set the time zone to UTC", "The logs of different machines can then be compared.", "timedatectl set-timezone Etc/UTC", "", ""},

	{"cron-mode", low, 1, "Restrict access to cron jobs", "They run as root.", "chmod 600 /etc/crontab, 700 /etc/cron.*", "C 2.4.1.2, C 2.4.1.7, DS os-13", withCron},
	{"cron-allow", low, 2, "Restrict cron and at to listed users", "A job can restore an attacker's access after every reboot.", "list the users in /etc/cron.allow and /etc/at.allow", "C 2.4.1.2", withCron},

	{"cloud-imdsv2", high, 1, "Require IMDSv2", "Without it, a web server that can be made to fetch a URL (SSRF) gives away the machine's credentials.", `imds_support = "v2.0" and metadata_options { http_tokens = "required" } in the template: it is a setting of the image, not of the machine`, "", "machines with a metadata service"},
	{"cloud-init-pwauth", high, 1, "Disable SSH password and root login in cloud-init", "Otherwise cloud-init overrides the SSH configuration at the first boot.", "ssh_pwauth: false and disable_root: true in /etc/cloud/cloud.cfg.d", "", withInit},
	{"cloud-init-hostkeys", high, 1, "Generate new SSH host keys on every machine", "Machines with the same host keys can impersonate each other.", "ssh_deletekeys: true in /etc/cloud/cloud.cfg.d", "", withInit},
	{"cloud-init-data-mode", high, 1, "Restrict access to user data", "User data often contains passwords and tokens.", "chmod 600 the files in /var/lib/cloud/instance", "", withInit},
	{"cloud-init-datasource", low, 2, "Restrict cloud-init data sources to EC2", "Otherwise an attached disk can configure the machine. With this setting, the image boots only on EC2.", "datasource_list: [ Ec2, None ]", "", withInit},
	{"cloud-serial-root", medium, 2, "Disable automatic login on the console", "Otherwise whoever has access to the serial console is root.", "remove --autologin from the units of getty", "", ""},

	{"boot-cmdline", high, 1, "Ensure kernel protections are not disabled at boot", "A single kernel option can turn them off.", "remove the option from the boot loader configuration and reboot", "", kernel},
	{"boot-grub-mode", medium, 1, "Restrict access to the boot loader configuration", "It may contain a password, and whoever can write it is root after a reboot.", "chmod 600 grub.cfg", "C 1.4.2, R29", "machines with GRUB"},
	{"boot-grub-password", low, 2, "Set a boot loader password", "Otherwise anyone with console access can start a root shell. Without --unrestricted in its menu entries, the machine no longer boots unattended.", "password_pbkdf2 in the GRUB configuration", "C 1.4.1, R9-212010, U24-102000, R5", "machines with GRUB"},
	{"mac-enforcing", medium, 1, "Enable AppArmor or SELinux", "A compromised service can do only what its profile allows.", "install apparmor; SELINUX=enforcing, then relabel and reboot", "C 1.3.1.3, R9-431010, U24-100510, R37, R45, R79", kernel},

	{"core-dumps", low, 1, "Disable core dumps", "Core dumps contain keys and passwords.", "* hard core 0 in /etc/security/limits.d, Storage=none in coredump.conf, fs.suid_dumpable = 0", "C 1.5.3, R9-213090, R9-213095, R14, DS sysctl-31", ""},
	{"banner-mode", low, 1, "Restrict write access to login banners", "Users trust what they read at login.", "chmod 644 /etc/issue, /etc/issue.net, /etc/motd", "C 1.6.5", ""},
	{"banner-os-info", low, 2, "Remove OS information from login banners", "It helps attackers find known vulnerabilities.", "a neutral text in /etc/issue and /etc/issue.net", "C 1.6.2", ""},
	{"crypto-policy", medium, 1, "Disable outdated TLS versions", "SSL, TLS 1.0 and TLS 1.1 can be broken.", "update-crypto-policies --set DEFAULT; no MinProtocol below TLSv1.2 and no SECLEVEL below 2 in /etc/ssl/openssl.cnf", "R9-215105, R9-672030", ""},
}
