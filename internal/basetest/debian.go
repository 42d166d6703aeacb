package basetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// SmallDebian are packages over the minimal system that a test wants: ping brings a
// security.capability, passwd a set-id program.
var SmallDebian = []string{"iputils-ping", "libcap2-bin"}

// BenchDebian are packages over the minimal system that give a root of about 400 MB and 16,000
// entries.
var BenchDebian = []string{
	"binutils", "cpp", "git", "iputils-ping", "libcap2-bin", "locales", "nginx-light",
	"openssh-server", "perl", "python3-pip",
}

// GuestDebian are packages over the minimal system that a virtual machine starts with: 660 MB, most
// of it modules.
var GuestDebian = []string{
	"auditd", "busybox", "dbus", "iproute2", "linux-image-amd64", "nftables", "openssh-server", "systemd-boot-efi", "systemd-sysv", "udev",
}

// debianEpoch clamps the times of what installing the packages makes, in seconds.
const debianEpoch = "1700000000"

// Debian returns the path of an uncompressed archive of a minimal Debian root with the packages. It
// is made with mmdebstrap and the machine's package mirrors, and kept in CacheDir; its
// name is made of the list.
func Debian(ctx context.Context, packages []string) (string, error) {
	list := strings.Join(slices.Sorted(slices.Values(packages)), ",")
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	name := filepath.Join(cache, fmt.Sprintf("debian-bookworm-%.6x.tar", sha256.Sum256([]byte(list))))
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	tmp, err := os.MkdirTemp(cache, "debian-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, "root.tar")
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+list, "bookworm", made)
	// Nothing here starts with an initrd of Debian's, which takes a minute to make.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+debianEpoch, "DEBIAN_FRONTEND=noninteractive", "INITRD=No")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap with %s: %w\n%s", list, err, out)
	}
	return name, os.Rename(made, name)
}

// CacheDir returns the folder where tests keep what takes long to make: iscadm-ci in the user's
// cache folder.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "iscadm-ci")
	return dir, os.MkdirAll(dir, 0o755)
}
