package profiles

// The K controls: cryptography, integrity and time.
var integrityControls = []Control{
	{
		ID:    "K01",
		Title: "Cryptography is that of a validated module",
		Why:   "Some sites must use nothing else.",
		Refs:  []string{"STIG SOL-11.1-060010", "STIG SOL-11.1-060060"},
		Scope: LiveOnly,
		On: map[string]Method{
			Solaris: {How: "cryptoadm enable fips-140, in the global zone", Live: "cryptoadm enable fips-140"},
			Linux:   {How: "fips=1 on the kernel's command line", Live: "fips-mode-setup --enable"},
		},
		Absent: map[string]string{Illumos: "it has no such mode, and no validated module"},
	},
	{
		ID:    "K02",
		Title: "Packages are installed only if they are signed",
		Why:   "A mirror can be anybody's.",
		Refs:  []string{"STIG SOL-11.1-020020"},
		On: map[string]Method{
			Illumos: {
				How:   "var/pkg/pkg5.image: [property] signature-policy=require-signatures",
				Globs: []string{"var/pkg/pkg5.image"},
				Needs: []string{"var/pkg/pkg5.image"},
				Edits: settings(setOption("property"), "var/pkg/pkg5.image", "signature-policy", "require-signatures"),
			},
			Linux: {
				How:   "etc/apt/apt.conf.d/99-isc: no unauthenticated packages; etc/dnf/dnf.conf: gpgcheck=1",
				Globs: []string{"etc/apt/apt.conf.d/99-isc", "etc/dnf/dnf.conf"},
				Needs: []string{"etc/apt", "etc/dnf/dnf.conf"},
				Edits: all(fileBelow("etc/apt", "etc/apt/apt.conf.d/99-isc", "APT::Get::AllowUnauthenticated \"false\";\nAcquire::AllowInsecureRepositories \"false\";\n"),
					ifThere("etc/dnf/dnf.conf", settings(setOption("main"), "etc/dnf/dnf.conf", "gpgcheck", "1"))),
			},
		},
	},
	{
		ID:    "K03",
		Title: "What is installed is compared with what was published",
		Why:   "A change that nobody made is found only by looking. The image's own index is the baseline; bart(8) can write one too.",
		Refs:  []string{"STIG SOL-11.1-090010", "STIG SOL-11.1-020190"},
		On: map[string]Method{
			Illumos: {
				How:   "var/adm/log/bartlogs 0700 root:root; dock: instances are checked against their image",
				Globs: []string{"var/adm/log/bartlogs"}, Edits: directory("var/adm/log/bartlogs", 0o700),
				Dock: "every instance is checked against its image at least once a week",
			},
			Linux: {How: "dock: instances are checked against their image", Dock: "every instance is checked against its image at least once a week"},
		},
	},
	{
		ID:    "K04",
		Title: "The clock is right",
		Why:   "Records of several machines tell one story only by the same time.",
		Refs:  []string{"STIG SOL-11.1-090020"},
		On: map[string]Method{
			Illumos: {How: "dock: the global zone runs ntp or chrony; its zones have its clock", Dock: "the host's clock is set by two servers of known standing"},
			Linux:   {How: "dock: the host sets the clock of its zones and guests", Dock: "the host's clock is set by two servers of known standing, and is that of the guest"},
		},
	},
	{
		ID:    "K05",
		Title: "Data at rest is encrypted",
		Why:   "Disks are lost, sold and copied.",
		Refs: []string{
			"STIG SOL-11.1-060140", "STIG SOL-11.1-060150", "STIG SOL-11.1-060160", "STIG SOL-11.1-060170", "STIG SOL-11.1-060180",
		},
		On: map[string]Method{
			Illumos: {How: "scratch space by site/isc-enc-scratch; dock: volumes on encrypted datasets", Dock: "volumes lie on encrypted datasets; swap and dump devices are encrypted or absent"},
			Solaris: {
				How:  "scratch space by site/isc-enc-scratch; swap on ZFS volumes is always encrypted; dock: volumes on encrypted datasets",
				Dock: "volumes lie on encrypted datasets; dump devices are encrypted or absent",
			},
			Linux: {How: "scratch space and swap by crypttab, or by what starts a verified guest; dock: volumes on encrypted disks", Dock: "volumes lie on encrypted disks or datasets; swap is encrypted or absent"},
		},
	},
}

// ifThere applies edits only where there is a file.
func ifThere(name string, edits func(*Params) []Edit) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			if ok, err := exists(root, name); err != nil || !ok {
				return err
			}
			for _, edit := range edits(p) {
				if err := edit(root); err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

// fileBelow makes a file where there is the directory.
func fileBelow(dir, name, text string) func(*Params) []Edit {
	return ifThere(dir, file(name, 0o644, text))
}
