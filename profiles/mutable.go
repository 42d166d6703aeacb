package profiles

// defaultMutables are what a running system of each kind writes into its own root whatever it serves.
// What is wider than a name ends in /*/**, so that the directory itself is still looked at. Nothing is
// here that is run or believed at the next start without anybody's doing, such as crontabs, nor what only
// people leave, such as the history of a shell: that it differs is worth knowing.
var defaultMutables = map[string][]Mutable{
	// What was seen to differ after a first start of a zone, less that.
	Illumos: {
		{Rule: "any", Paths: []string{
			"/etc/svc/repository.db", "/etc/svc/repository-*", "/etc/svc/volatile/*/**", "/etc/svc/profile/platform.xml",
			"/etc/mnttab", "/etc/nodename", "/etc/inet/hosts", "/etc/ipadm/*", "/etc/dladm/*", "/etc/dhcp/*.dhc",
			"/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub",
			"/etc/cron.d/FIFO", "/var/adm/utmpx", "/var/adm/lastlog", "/var/run/*/**", "/system/volatile/*/**", "/etc/isc", "/etc/isc/identity", "/etc/isc/identified",
			"/var/spool/mqueue/*", "/var/spool/clientmqueue/*",
		}},
		{Rule: "append", Paths: []string{
			"/var/adm/messages*", "/var/adm/*log", "/var/adm/wtmpx", "/var/audit/*", "/var/cron/log*", "/var/log/*/**", "/var/svc/log/*",
		}},
	},
	Solaris: {
		{Rule: "any", Paths: []string{
			"/etc/svc/repository.db", "/etc/svc/repository-*", "/etc/svc/profile/platform.xml", "/etc/mnttab", "/etc/inet/hosts", "/etc/ipadm/*",
			"/etc/dladm/*", "/etc/dhcp/*.dhc", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub",
			"/etc/cron.d/FIFO", "/var/adm/utmpx", "/var/adm/lastlog", "/var/run/*/**", "/system/volatile/*/**", "/var/share/*/**",
			"/etc/isc", "/etc/isc/identity", "/etc/isc/identified", "/etc/svc/profile/node/isc-identity.xml",
			"/var/spool/mqueue/*", "/var/spool/clientmqueue/*",
		}},
		{Rule: "append", Paths: []string{
			"/var/adm/messages*", "/var/adm/*log", "/var/adm/wtmpx", "/var/cron/log*", "/var/log/*/**", "/var/svc/log/*",
		}},
	},
	Linux: {
		{Rule: "any", Paths: []string{
			"/etc/machine-id", "/etc/.updated", "/etc/.pwd.lock", "/etc/adjtime", "/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub",
			"/run/*/**", "/tmp/systemd-private-*/**", "/var/tmp/systemd-private-*/**",
			"/var/.updated", "/var/cache/ldconfig/aux-cache", "/var/lib/chrony/*", "/var/lib/dhcp/*", "/var/lib/dhcpcd/*", "/var/lib/logrotate/*",
			"/var/lib/systemd/random-seed", "/var/lib/systemd/catalog/database", "/var/lib/systemd/timers/*", "/var/lib/systemd/timesync/*",
			"/var/log/journal/*/**", "/var/log/lastlog", "/var/log/faillog",
			"/etc/isc", "/etc/isc/identity", "/etc/isc/identified",
		}},
		{Rule: "append", Paths: []string{"/var/log/*/**"}},
	},
}

// DefaultMutables returns the rules of an image that names none: what differs in any running instance of
// the operating system. Logs may grow and come, not shrink: an image has them empty, so that their
// rotation is no drift. They are for the comparison of instances alone: no service gets the right to write
// there by them.
func DefaultMutables(os string) []Mutable { return defaultMutables[os] }

// Personal returns the rule for what the service of the identity block writes in the root besides what
// differs in any instance: the name, and the keys of the account.
func (l *Layout) Personal(root Root) ([]Mutable, error) {
	if l.Identity == nil {
		return nil, nil
	}
	var paths []string
	if l.OS == Linux {
		paths = append(paths, "/etc/hostname")
	}
	if user := l.Identity.User; user != "" {
		b := baker{root: root, layout: l}
		f, err := b.record(user)
		if err != nil {
			return nil, err
		}
		paths = append(paths, globQuote(f[5])+"/.ssh/authorized_keys")
	}
	if len(paths) == 0 {
		return nil, nil
	}
	return []Mutable{{Rule: "any", Paths: paths}}, nil
}
