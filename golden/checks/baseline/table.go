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
	kernel   = "machines with a kernel of their own"
	apt      = "Debian and Ubuntu"
	withCron = "machines with cron"
	withInit = "machines with cloud-init"
)

// table lists the rules in display order. The columns are: id, severity, level,
// requirement, why it matters, what to do if it is not met, numbers in other standards,
// and where it applies.
//
// References: C is a section of CIS Debian Linux 12 1.1.0, R9 a number of the STIG for
// RHEL 9 (V2R9), U24 one of the STIG for Ubuntu 24.04 (V1R5), R a recommendation of
// ANSSI-BP-028 2.0, and DS a control of the DevSec Linux Baseline.
var table = []rule{
	{"ssh-root-login", high, 1, "root cannot log in over SSH", "A login of root cannot be traced to a person, and its name need not be guessed.", "PermitRootLogin no", "C 5.1.20, R9-255045, R33", ""},
	{"ssh-password-auth", critical, 1, "SSH takes no passwords", "Passwords are guessed; keys are not.", "PasswordAuthentication no, also in Match blocks", "", ""},
	{"ssh-kbdint-auth", high, 1, "SSH asks no questions", "Keyboard-interactive logins are passwords by another name. Waive the rule where one-time codes are used.", "KbdInteractiveAuthentication no", "", ""},
	{"ssh-empty-passwords", critical, 1, "SSH takes no empty passwords", "An account without a password would be open to everyone.", "PermitEmptyPasswords no", "C 5.1.19, R9-255040, U24-300031", ""},
	{"ssh-hostbased", medium, 1, "SSH trusts no other hosts", "Whoever controls a trusted host could log in as any of its users.", "HostbasedAuthentication no, IgnoreRhosts yes", "C 5.1.10, C 5.1.11", ""},
	{"ssh-user-environment", medium, 1, "SSH takes no environment from users", "Variables such as LD_PRELOAD get around restrictions of a key.", "PermitUserEnvironment no", "C 5.1.21, R9-255085, U24-300031", ""},
	{"ssh-strict-modes", medium, 1, "SSH checks the modes of key files", "Keys that others can write to let others in.", "StrictModes yes", "R9-255160", ""},
	{"ssh-max-auth-tries", medium, 1, "SSH ends a connection after at most 4 failed logins", "It slows down guessing. Fewer would lock out people with several keys in their agent.", "MaxAuthTries 4", "C 5.1.16", ""},
	{"ssh-login-grace", low, 1, "a login over SSH takes at most a minute", "Connections that do not log in keep the server busy. 0 means no limit.", "LoginGraceTime 60", "C 5.1.13", ""},
	{"ssh-max-startups", low, 1, "SSH limits connections that have not logged in", "Many of them at a time keep everybody else out.", "MaxStartups 10:30:60", "C 5.1.18", ""},
	{"ssh-idle", low, 1, "SSH ends dead connections within 15 minutes", "A connection whose other end is gone stays open to whoever takes it over.", "ClientAliveInterval 300, ClientAliveCountMax 3", "C 5.1.7, R9-255095, R9-255100, U24-600000, U24-600010", ""},
	{"ssh-x11", low, 1, "SSH forwards no X11", "A server needs no windows, and a program on it could read those of its users.", "X11Forwarding no", "R9-255155, U24-300022", ""},
	{"ssh-use-pam", medium, 1, "SSH uses PAM", "Limits, lockouts and the log of sessions are PAM's; without it cloud users with a locked password cannot log in.", "UsePAM yes", "C 5.1.22, R9-255050, U24-500050", ""},
	{"ssh-log-level", medium, 1, "SSH logs who logs in", "Without it nobody can tell afterwards who came in with which key.", "LogLevel VERBOSE", "C 5.1.14, R9-255030", ""},
	{"ssh-ciphers", high, 1, "SSH offers no weak ciphers", "CBC, 3DES and RC4 leak what is sent.", "remove the weak ones from Ciphers", "C 5.1.6, R9-255065, U24-100820", ""},
	{"ssh-macs", medium, 1, "SSH offers no weak MACs", "MD5, SHA-1 and short tags allow changes in transit to go unnoticed.", "remove the weak ones from MACs", "C 5.1.15, R9-255075, U24-100830", ""},
	{"ssh-kex", medium, 1, "SSH offers no weak key exchanges", "Those with SHA-1 are within reach of attackers.", "remove those with SHA-1 from KexAlgorithms", "C 5.1.12, U24-100840", ""},
	{"ssh-config-mode", medium, 1, "only root reads and writes the configuration of SSH", "Whoever can write it can let anybody in.", "chmod 600 and chown root:root /etc/ssh/sshd_config and /etc/ssh/sshd_config.d/*.conf", "C 5.1.1, R9-255115, R50", ""},
	{"ssh-hostkey-mode", critical, 1, "only root reads the host keys", "Whoever has them can pose as the machine.", "chmod 600 /etc/ssh/ssh_host_*_key", "C 5.1.2, R9-255120, R50", ""},
	{"ssh-forwarding", medium, 2, "SSH forwards nothing", "Forwarding leads past firewalls. Bastions, tunnels and remote editors need it.", "DisableForwarding yes", "C 5.1.8", ""},
	{"ssh-access-list", medium, 2, "SSH lets in only users that are listed", "An account made by a package or by mistake is no way in. Whoever logs in later, such as through EC2 Instance Connect, must be listed too.", "AllowGroups with the group of the user of the image", "C 5.1.4", ""},

	{"pam-nullok", high, 1, "PAM takes no empty passwords", "An account without a password would be open to everyone.", "remove nullok from pam_unix", "C 5.3.3.4.1, R9-611025, U24-300028", ""},
	{"pam-faillock", medium, 1, "an account is locked for a while after 5 wrong passwords", "It slows down guessing. Logins with keys are not counted.", "pam_faillock with deny = 5 and unlock_time = 900", "C 5.3.2.2, C 5.3.3.1.1, R9-411075, U24-200610, R31", ""},
	{"pam-pwquality", medium, 1, "new passwords have at least 14 characters", "Short passwords are guessed.", "pam_pwquality with minlen = 14, and a dictionary", "C 5.3.1.3, C 5.3.3.2.2, R9-611090, U24-100600, U24-400320, R31, R68", ""},
	{"pam-hash", high, 1, "passwords are kept as strong hashes", "Weak hashes are turned back into passwords quickly.", "ENCRYPT_METHOD YESCRYPT or SHA512; accounts with older hashes need a new password", "C 5.3.3.4.3, C 5.4.1.4, R9-611140, U24-400400, R68", ""},
	{"pam-pwhistory", low, 2, "old passwords are not taken again", "A password that has leaked would come back.", "pam_pwhistory with remember=24", "C 5.3.3.3.1", ""},
	{"pw-aging", low, 2, "passwords of new accounts are valid for at most a year", "A password that has leaked stops working. An account whose password has expired cannot use keys or sudo either: existing ones are left alone.", "PASS_MAX_DAYS 365 in /etc/login.defs", "C 5.4.1.1, R9-411010, U24-400310, DS os-05", ""},
	{"umask-default", low, 2, "new files are not readable by everyone", "Files are private unless somebody decides otherwise. Scripts that make files for other users have to set their mode.", "UMASK 027 in /etc/login.defs", "C 5.4.3.3, R9-412065, U24-300030, R36, DS os-05", ""},
	{"su-wheel", low, 2, "only administrators use su", "A password of another account is of no use without the group.", "pam_wheel with use_uid in /etc/pam.d/su", "C 5.2.7, R9-432035", ""},
	{"shell-timeout", low, 2, "an idle shell ends after 15 minutes", "A forgotten terminal is open to whoever finds it.", "TMOUT=900 in /etc/profile.d", "C 5.4.3.2, R9-412035, U24-200060, R32", ""},

	{"sudo-files-mode", high, 1, "only root writes the files of sudo", "Whoever can write them is root.", "chmod 440 /etc/sudoers and the files in /etc/sudoers.d, which is 750", "", ""},
	{"sudo-use-pty", medium, 1, "sudo runs commands in a terminal of their own", "A command could type into the terminal of its user after it has ended.", "Defaults use_pty", "C 5.2.2, R39", ""},
	{"sudo-authenticate", high, 1, "sudo is not told to skip authentication", "Every user that sudo knows would be root.", "remove !authenticate from sudoers", "C 5.2.4, C 5.2.5, R9-432025, U24-300021", ""},
	{"sudo-env", medium, 1, "sudo sets the path and resets the environment", "A user's own PATH or LD_PRELOAD would run the user's programs as root.", "Defaults secure_path=…, and no !env_reset", "", ""},
	{"sudo-logfile", low, 2, "sudo has a log of its own", "It is easier to keep and to search. The journal has the same.", "Defaults logfile=/var/log/sudo.log", "C 5.2.3", ""},
	{"sudo-nopasswd", medium, 2, "sudo asks for a password", "Whoever gets at a session would be root. Users of cloud images have keys and no password: without NOPASSWD they cannot become root at all.", "give the users passwords, and remove NOPASSWD from sudoers", "C 5.2.4, R9-611085, U24-300020, U24-300021", ""},

	{"account-uid0", critical, 1, "only root has the user ID 0", "Any other is root by another name, which is seldom looked at.", "remove the account or give it another ID", "C 5.4.2.1, R9-411100", ""},
	{"account-empty-password", critical, 1, "no account has an empty password", "It would be open to everyone.", "lock the password with passwd -l", "C 7.2.1, C 7.2.2, R9-611155, U24-300027", ""},
	{"account-root-locked", medium, 1, "root has no password", "It is the account that everybody guesses at. There is no rescue shell on the serial console without one.", "usermod -L root", "C 5.4.2.4, U24-400110, R33", ""},
	{"account-system-shell", medium, 1, "system accounts have no shell and no password", "Nobody logs in as a service, except an attacker.", "usermod -s nologin", "C 5.4.2.7, R9-411035", ""},
	{"account-unique-ids", medium, 1, "names and IDs of accounts and groups are unique", "Two accounts with one ID are one to the kernel.", "rename or renumber the account", "C 7.2.5, C 7.2.6, C 7.2.7, R9-411030, R9-411110, DS os-07", ""},
	{"account-home-mode", medium, 1, "home directories belong to their users and are closed to others", "They hold keys, tokens and histories.", "chmod 750 and chown the directory, unless it is of the system or of others as well", "C 7.2.9, R9-232050, R9-411065", ""},
	{"account-dotfiles", medium, 1, "nobody else can write to the dot files of a user", "They run as the user at the next login. Files such as .rhosts and .netrc have no place on a server.", "chmod go-w; remove .rhosts, .shosts, .netrc and .forward", "C 7.2.10, R50, DS os-09", ""},
	{"account-root-path", high, 1, "only root can write to the path of root", "A program put there runs as root.", "remove empty and relative entries and those that others can write to from root's PATH", "C 5.4.2.5, DS os-04", ""},
	{"account-shadow-group", medium, 1, "nobody is in the group shadow", "Its members read all password hashes.", "gpasswd -d USER shadow", "C 7.2.4", ""},

	{"file-passwd-mode", high, 1, "only root writes the list of accounts", "Whoever can write it is root.", "chmod 644 /etc/passwd, /etc/group, /etc/shells", "C 7.1.1, C 7.1.3, R9-232055, R9-232075, R50, DS os-03", ""},
	{"file-shadow-mode", critical, 1, "only root reads the password hashes", "Whoever has them can guess at leisure.", "chmod 640 /etc/shadow, /etc/gshadow", "C 7.1.5, C 7.1.7, R9-232065, R9-232270, R50, DS os-02", ""},
	{"file-world-writable", high, 1, "no file is writable by everyone", "Anybody could change what others rely on.", "chmod o-w", "C 7.1.11, R54", ""},
	{"file-sticky-dirs", high, 1, "directories that everyone can write to are sticky", "Anybody could remove or replace the files of others.", "chmod +t", "R9-232245, U24-600150, R54", ""},
	{"file-unowned", medium, 1, "every file has an owner", "The next account with that ID would own it.", "chown or remove the file", "C 7.1.12, R9-232250, R9-232255, R53", ""},
	{"file-suid", medium, 1, "every set-user-ID or set-group-ID program belongs to a package", "A program that nobody updates and that runs as root is a way to become root.", "chmod u-s,g-s, or install the program from a package", "R56, DS os-06", ""},
	{"file-system-dirs", high, 1, "only root writes to programs and to the configuration of the system", "Whoever can write them is root.", "chmod go-w and chown root", "R9-232190, R9-232205, U24-300009, U24-300012, R50", ""},
	{"file-log-mode", medium, 1, "logs of logins and of cloud-init are not open to everyone", "They tell who comes from where, and what the machine was told at its start.", "chmod o-rwx", "C 6.1.4.1, R9-232030, DS os-11", ""},

	{"mount-dev-shm", medium, 1, "/dev/shm has no devices and no set-user-ID programs", "Everyone can write there.", "mount it with nodev,nosuid", "C 1.1.2.2.2, C 1.1.2.2.3, R9-231110, R9-231120, DS os-15, DS os-16", kernel},
	{"mount-dev-shm-noexec", low, 2, "no program runs from /dev/shm", "Everyone can write there. Some databases and browsers run programs from it.", "mount it with noexec", "C 1.1.2.2.4, R9-231115", kernel},
	{"mount-tmp", medium, 2, "/tmp is a file system of its own without devices and set-user-ID programs", "Everyone can write there. It takes memory, and what is in /tmp is gone after a reboot.", "enable tmp.mount and reboot", "C 1.1.2.1.2, C 1.1.2.1.3, R9-231125, R9-231135, R28", ""},

	{"kernel-aslr", high, 1, "memory is laid out at random", "Attacks need to know where things are.", "kernel.randomize_va_space = 2", "C 1.5.1, R9-213070, U24-700310, R9, DS sysctl-32", kernel},
	{"kernel-ptrace", medium, 1, "a program does not read the memory of others", "One that is taken over would find keys and passwords in those of the same user.", "kernel.yama.ptrace_scope = 1", "C 1.5.2, R9-213080, R11, DS sysctl-35", kernel},
	{"kernel-pointers", medium, 1, "users see no addresses of the kernel", "Attacks on the kernel need to know where things are.", "kernel.kptr_restrict = 1, kernel.dmesg_restrict = 1", "R9-213010, R9-213025, U24-600140, R9", kernel},
	{"kernel-bpf", medium, 1, "only root loads BPF programs", "They were a way into the kernel more than once.", "kernel.unprivileged_bpf_disabled = 1, net.core.bpf_jit_harden = 2", "R9-213075, R9-251045, R12, R9", kernel},
	{"kernel-perf", low, 1, "users do not trace the kernel", "What is measured leaks what is computed.", "kernel.perf_event_paranoid = 2", "R9-213015, R9", kernel},
	{"kernel-sysrq", low, 1, "the console cannot do anything it likes", "Keys on the console could end processes and show memory.", "kernel.sysrq = 0", "R9, DS sysctl-30", kernel},
	{"kernel-kexec", medium, 2, "no other kernel can be started", "It would run without the checks of the boot. Crash dumps and live patches need it.", "kernel.kexec_load_disabled = 1", "R9-213020", kernel},
	{"kernel-links", high, 1, "links and pipes in shared directories are protected", "Programs of root that write in /tmp were led to other files.", "fs.protected_hardlinks = 1, fs.protected_symlinks = 1, fs.protected_fifos = 1, fs.protected_regular = 2", "R9-213030, R14, DS sysctl-34", kernel},

	{"net-forwarding", medium, 1, "the machine is no router", "It would lead from one network into another. Machines that run containers, and NAT or VPN machines, have to be.", "net.ipv4.ip_forward = 0, net.ipv6.conf.all.forwarding = 0", "C 3.3.1, R9-253075, R12, DS sysctl-01, DS sysctl-19", "machines without a container runtime"},
	{"net-redirects", medium, 1, "ICMP redirects are neither sent nor taken", "A neighbour could lead traffic through itself.", "net.ipv4.conf.{all,default}.{send,accept,secure}_redirects = 0, and accept_redirects of IPv6", "C 3.3.2, C 3.3.5, C 3.3.6, R9-253015, R9-253065, R12, DS sysctl-14, DS sysctl-15, DS sysctl-16, DS sysctl-20", ""},
	{"net-source-route", high, 1, "senders do not choose the way of packets", "They would lead past firewalls.", "net.ipv4.conf.{all,default}.accept_source_route = 0, and the same of IPv6", "C 3.3.8, R9-253020, R12, DS sysctl-13", ""},
	{"net-rp-filter", medium, 1, "packets with an impossible sender are dropped", "A forged sender gets past rules that trust an address. 2 (loose) also works with several network interfaces.", "net.ipv4.conf.{all,default}.rp_filter = 2", "C 3.3.7, R9-253035, R12, DS sysctl-02", ""},
	{"net-martians", low, 1, "packets with an impossible sender are logged", "They show that somebody tries.", "net.ipv4.conf.{all,default}.log_martians = 1", "C 3.3.9, R9-253025, DS sysctl-17", ""},
	{"net-syncookies", medium, 1, "a flood of connections does not keep others out", "It is the oldest way to do so.", "net.ipv4.tcp_syncookies = 1", "C 3.3.10, R9-253010, U24-600190, R12, DS sysctl-11", ""},
	{"net-icmp", low, 1, "broadcast pings and bogus errors are ignored", "The machine could be used to flood others, and its log be filled.", "net.ipv4.icmp_echo_ignore_broadcasts = 1, net.ipv4.icmp_ignore_bogus_error_responses = 1", "C 3.3.4, R9-253055, DS sysctl-03, DS sysctl-04", ""},
	{"net-ipv6-ra", low, 2, "routers do not announce themselves", "A neighbour could pose as a router. On AWS the default route of IPv6 comes this way and no other.", "net.ipv6.conf.{all,default}.accept_ra = 0", "C 3.3.11, R9-254010, DS sysctl-25", ""},

	{"module-filesystems", low, 1, "file systems that nobody uses cannot be loaded", "Their code is old, and a disk or image that was prepared attacks the kernel through it.", "install lines for cramfs, freevxfs, hfs, hfsplus and jffs2 in /etc/modprobe.d", "C 1.1.1.1, C 1.1.1.3, R9-231195, DS os-10", kernel},
	{"module-protocols", medium, 1, "network protocols that nobody uses cannot be loaded", "Any user could load them, and they were ways into the kernel.", "install lines for dccp, tipc, rds and sctp in /etc/modprobe.d", "C 3.2.1, C 3.2.4, R9-213060", kernel},
	{"module-usb-storage", low, 2, "USB disks cannot be used", "They carry data out and programs in. On EC2 there are none.", "an install line for usb-storage in /etc/modprobe.d", "C 1.1.1.9, R9-291010, U24-300039", kernel},

	{"service-legacy", high, 1, "no services without encryption are installed", "telnet, rsh, NIS and TFTP show everything to the network.", "remove the packages", "", ""},
	{"service-unneeded", medium, 1, "no services of desktops and networks are enabled", "What does not run cannot be attacked.", "systemctl disable --now", "", ""},
	{"service-ports", high, 1, "only SSH listens for the network", "Every other port is a way in that somebody has to watch. Waive the rule for what the image is made for.", "stop the service, bind it to 127.0.0.1, or waive the rule", "", ""},
	{"service-mta-local", medium, 1, "mail is taken from the machine only", "An open mail server is found within hours.", "inet_interfaces = loopback-only in Postfix", "", ""},
	{"service-failed", medium, 1, "no service has failed", "A service that did not start does not protect.", "systemctl --failed", "", ""},
	{"service-ctrl-alt-del", low, 1, "keys on the console do not reboot the machine", "Nobody who only has the console should.", "systemctl mask ctrl-alt-del.target", "", ""},
	{"firewall", medium, 2, "the machine's own firewall lets in only SSH", "A second line if a security group is wrong. Machines that run containers need rules of their own.", "nftables with an input chain whose policy is drop", "", ""},

	{"pkg-signed", critical, 1, "only signed packages are installed", "Whoever is between the machine and the mirror could install anything.", "remove trusted=yes and AllowUnauthenticated; gpgcheck=1 in dnf.conf and in the repositories", "R9-214015, R9-214025, R59", ""},
	{"pkg-valid-until", medium, 1, "an old state of the mirror is not taken for new", "Whoever is between the machine and the mirror could hide updates. Waive the rule for a frozen mirror.", "remove check-valid-until=no", "", apt},
	{"pkg-updates", high, 1, "all updates are installed", "What they mend is known to everyone.", "apt-get dist-upgrade, dnf upgrade --security; packages that are held by hand: apt-mark unhold", "R9-211015, R61", ""},
	{"pkg-kernel-current", medium, 1, "the newest kernel that is installed is the one that runs", "Updates of the kernel mend nothing before a reboot.", "reboot", "", kernel},
	{"pkg-auto-updates", low, 2, "updates are installed by themselves", "Machines that live long miss no update. Images that are baked anew get theirs that way.", "unattended-upgrades, dnf-automatic", "R61", ""},

	{"log-persistent", medium, 1, "logs survive a reboot", "What led to it would be gone.", "Storage=persistent in journald.conf", "C 6.1.2.4", ""},
	{"log-limit", low, 1, "logs do not fill the disk", "A full disk stops the machine.", "SystemMaxUse=500M in journald.conf", "", ""},
	{"log-rsyslog-mode", low, 1, "logs of rsyslog are not open to everyone", "They tell who comes from where.", "$FileCreateMode 0640", "C 6.1.3.4, R71", "machines with rsyslog"},
	{"audit-enabled", medium, 2, "the kernel keeps an audit log", "It shows afterwards who did what.", "install and enable auditd", "C 6.2.1.1, C 6.2.1.2, R9-653010, R9-653015, U24-100400, U24-100410, R33, R73", kernel},
	{"audit-rules", medium, 2, "changes of accounts, sudo and SSH are in the audit log", "They are what an attacker does to stay.", "watches in /etc/audit/rules.d", "C 6.2.3.8, R9-654245, U24-200300, R73", kernel},

	{"time-sync", medium, 1, "the clock is kept right", "Certificates and logs depend on it.", "install and enable chrony", "C 2.3.1.1, R9-252010, R9-252015, U24-100700, R71", kernel},
	{"time-zone-utc", low, 2, "the clock shows UTC", "Logs of different machines can be read together.", "timedatectl set-timezone Etc/UTC", "", ""},

	{"cron-mode", low, 1, "only root reads and writes the jobs of cron", "They run as root.", "chmod 600 /etc/crontab, 700 /etc/cron.*", "C 2.4.1.2, C 2.4.1.7, DS os-13", withCron},
	{"cron-allow", low, 2, "only users that are listed have jobs", "A job brings an attacker back after every reboot.", "list the users in /etc/cron.allow and /etc/at.allow", "C 2.4.1.2", withCron},

	{"cloud-imdsv2", high, 1, "the metadata service asks for a token", "Without it a web server that can be led to fetch an address gives away the credentials of the machine.", `imds_support = "v2.0" and metadata_options { http_tokens = "required" } in the template: it is a setting of the image, not of the machine`, "", "machines with a metadata service"},
	{"cloud-init-pwauth", high, 1, "cloud-init lets nobody in with a password", "It would undo the setting of SSH at the first boot.", "ssh_pwauth: false and disable_root: true in /etc/cloud/cloud.cfg.d", "", withInit},
	{"cloud-init-hostkeys", high, 1, "every machine of the image gets host keys of its own", "Machines with the same keys can pose as each other.", "ssh_deletekeys: true in /etc/cloud/cloud.cfg.d", "", withInit},
	{"cloud-init-data-mode", high, 1, "only root reads what the machine was told at its start", "User data often holds passwords and tokens.", "chmod 600 the files in /var/lib/cloud/instance", "", withInit},
	{"cloud-init-datasource", low, 2, "cloud-init takes its orders from EC2 only", "A disk that is attached could give the machine orders. The image boots nowhere else then.", "datasource_list: [ Ec2, None ]", "", withInit},
	{"cloud-serial-root", medium, 2, "nobody is logged in on the console without being asked", "Whoever has the serial console would be root.", "remove --autologin from the units of getty", "", ""},

	{"boot-cmdline", high, 1, "the kernel was started with its protections", "A word on the command line switches them off.", "remove the option from the configuration of the boot loader and reboot", "", kernel},
	{"boot-grub-mode", medium, 1, "only root reads and writes the menu of the boot loader", "It may hold a password, and whoever can write it is root after a reboot.", "chmod 600 grub.cfg", "C 1.4.2, R29", "machines with GRUB"},
	{"boot-grub-password", low, 2, "the boot loader asks for a password before it is changed", "Whoever has the console could start a shell as root. Without --unrestricted in its entries the machine no longer boots by itself.", "password_pbkdf2 in the configuration of GRUB", "C 1.4.1, R9-212010, U24-102000, R5", "machines with GRUB"},
	{"mac-enforcing", medium, 1, "AppArmor or SELinux is on", "A service that is taken over can do only what its profile allows.", "install apparmor; SELINUX=enforcing, a new labelling and a reboot", "C 1.3.1.3, R9-431010, U24-100510, R37, R45, R79", kernel},

	{"core-dumps", low, 1, "crashed programs leave no memory on the disk", "It holds keys and passwords.", "* hard core 0 in /etc/security/limits.d, Storage=none in coredump.conf, fs.suid_dumpable = 0", "C 1.5.3, R9-213090, R9-213095, R14, DS sysctl-31", ""},
	{"banner-mode", low, 1, "only root writes the texts before and after a login", "Everybody who logs in reads and believes them.", "chmod 644 /etc/issue, /etc/issue.net, /etc/motd", "C 1.6.5", ""},
	{"banner-os-info", low, 2, "the text before a login does not tell what runs", "It spares an attacker the search.", "a neutral text in /etc/issue and /etc/issue.net", "C 1.6.2", ""},
	{"crypto-policy", medium, 1, "no outdated TLS is allowed", "SSL and TLS 1.0 and 1.1 can be read.", "update-crypto-policies --set DEFAULT; no MinProtocol below TLSv1.2 and no SECLEVEL below 2 in /etc/ssl/openssl.cnf", "R9-215105, R9-672030", ""},
}
