package profiles

// A Layout is what an ISC is besides its files: services, accounts, network, resource limits and
// the file systems that live shorter or longer than the image. The types carry the names of the
// spec file; every block is unlabelled.
type Layout struct {
	OS   string // one of [Platforms]
	Name string // of the image

	Users    []User    `hcl:"user,block"`
	Groups   []Group   `hcl:"group,block"`
	Services []Service `hcl:"service,block"`
	Network  *Network  `hcl:"network,block"`
	Limits   *Limits   `hcl:"limits,block"`
	Scratch  *Scratch  `hcl:"scratch,block"`
	Swap     *Swap     `hcl:"swap,block"`
	Volumes  []Volume  `hcl:"volume,block"`
	Mutables []Mutable `hcl:"mutable,block"`
	Identity *Identity `hcl:"identity,block"`
}

// A User is a line of passwd and shadow. Its password is locked: logging in is by key or not at all.
type User struct {
	Name    string   `hcl:"name"`
	UID     int      `hcl:"uid"`
	GID     *int     `hcl:"gid,optional"` // default: the group of the user's own name, made with GID = UID
	Groups  []string `hcl:"groups,optional"`
	Comment string   `hcl:"comment,optional"`
	Home    string   `hcl:"home,optional"`  // default "/"
	Shell   string   `hcl:"shell,optional"` // default: the system's false
}

// A Group is a line of group.
type Group struct {
	Name    string   `hcl:"name"`
	GID     int      `hcl:"gid"`
	Members []string `hcl:"members,optional"`
}

// A Service is a program that runs from boot: an SMF service or a systemd unit.
type Service struct {
	Name        string            `hcl:"name"`
	Description string            `hcl:"description,optional"`
	Exec        string            `hcl:"exec"`
	User        string            `hcl:"user,optional"`  // default root
	Group       string            `hcl:"group,optional"` // default the user's
	Directory   string            `hcl:"directory,optional"`
	Environment map[string]string `hcl:"environment,optional"`
	Listen      []string          `hcl:"listen,optional"`     // "8080/tcp"
	Privileges  []string          `hcl:"privileges,optional"` // illumos names; "!x" removes; mapped to capabilities on Linux, which refuses to remove what it cannot
	After       []string          `hcl:"after,optional"`      // names of services of the same spec, FMRIs or units
	Health      string            `hcl:"health,optional"`     // http://:PORT/PATH
	Timeout     int               `hcl:"timeout,optional"`    // of start and stop, seconds; default 60
	// EnvironmentFile is a file of the image of NAME=value lines, quoted as for sh(1).
	EnvironmentFile string `hcl:"environment_file,optional"`
}

// Network is the default-deny policy of the dock.
type Network struct {
	Allow    []string `hcl:"allow,optional"`    // inbound; default what the services listen on
	Outbound []string `hcl:"outbound,optional"` // default nothing
	// Publish maps ports of the host to ports of the instance: "443/tcp" = "8443/tcp".
	Publish map[string]string `hcl:"publish,optional"`
}

// Limits are resource caps. Sizes are "2GiB", "512MiB"; zero values mean no cap.
type Limits struct {
	Memory    string  `hcl:"memory,optional"`
	MaxSwap   string  `hcl:"max_swap,optional"`
	Locked    string  `hcl:"locked,optional"`
	Processes int     `hcl:"processes,optional"`
	LWPs      int     `hcl:"lwps,optional"`
	CPUs      float64 `hcl:"cpus,optional"`
	Shares    int     `hcl:"shares,optional"`
}

// Scratch is an encrypted file system whose key dies at shutdown. Zones without a delegated dataset and containers have it in
// memory. A root of Linux with a kernel, started from none of the disks below, has it on the partition labelled isc-scratch.
type Scratch struct {
	Path string `hcl:"path,optional"` // default /scratch
	Size string `hcl:"size"`
}

// Swap is encrypted swap whose key dies at shutdown; it belongs to a VM or the global zone. A root of Linux with a kernel, started
// from none of the disks below, has it on the partition labelled isc-swap. Other swap of the base is left out.
type Swap struct {
	Size string `hcl:"size"`
}

// A Volume is a directory that outlives reset and upgrade.
type Volume struct {
	Path  string `hcl:"path"`
	Size  string `hcl:"size,optional"`
	Owner string `hcl:"owner,optional"` // user; default the one that all services run as, else root
}

// A Mutable is a set of paths that may differ from the golden content.
type Mutable struct {
	Paths []string `hcl:"paths"`
	Rule  string   `hcl:"rule"` // any, append or reset
}

// Identity has instances take their name and the keys that may log in from the host at first start,
// and make host keys of their own: a file /etc/isc/identity, the system credential isc.identity, or
// the metadata of SmartOS and OmniOS. Guests with a read-only root do so at every start, in memory.
type Identity struct {
	User string `hcl:"user,optional"` // whose keys they are: an account that has a home of its own and a shell; default: nobody's
}
