package provisioner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

// foreign are the types of file systems that hold nothing of the machine itself.
var foreign = []string{
	"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "pstore", "bpf", "tracefs", "debugfs", "securityfs", "configfs",
	"fusectl", "mqueue", "hugetlbfs", "binfmt_misc", "rpc_pipefs", "efivarfs", "autofs", "nfs", "nfs4", "cifs", "smbfs", "9p", "virtiofs",
	"tmpfs", "squashfs", "nsfs", "ctfs", "objfs", "mntfs", "fd", "sharefs", "dev", "bootfs",
}

// prune is the expression of find(1) that shows mount points of those, but nothing below them.
func prune(action ...string) []string {
	args := []string{"("}
	for i, t := range foreign {
		if i > 0 {
			args = append(args, "-o")
		}
		args = append(args, "-fstype", t)
	}
	args = append(args, ")", "-prune")
	args = append(args, action...)
	return append(append(args, "-o"), action...)
}

// gnuFormat has find(1) of GNU print what parseGNU reads: fields with tabs, the link target, the name.
const gnuFormat = `%y\t%m\t%U\t%G\t%s\t%T@\t%l\0%P\0`

// list calls f with all objects of the machine's root.
func list(ctx context.Context, r remote.Runner, root string, f func(image.Entry) error) error {
	seen := false
	note := func(e image.Entry) error {
		seen = seen || e.Name == "."
		return f(e)
	}
	err := listAll(ctx, r, root, note)
	if err == nil && !seen {
		err = fmt.Errorf("list %q: find(1) shows nothing of it", root)
	}
	return err
}

func listAll(ctx context.Context, r remote.Runner, root string, f func(image.Entry) error) error {
	// find(1) of GNU goes by either name; the other cannot print numbers of owners.
	for _, find := range []string{"find", "gfind"} {
		ok, err := works(ctx, r, find, "/dev/null", "-printf", "%y")
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		// Without /proc it does not know types of file systems.
		ok, err = works(ctx, r, find, "/", "-maxdepth", "0", "-fstype", "proc")
		if err != nil {
			return err
		}
		args := append([]string{find, root}, prune("-printf", gnuFormat)...)
		if !ok {
			args = []string{find, root, "-xdev", "-printf", gnuFormat}
		}
		return stream(ctx, r, args, parseGNU, f)
	}
	// ls of illumos: full times, numbers of owners, and unprintable characters in octal.
	args := append([]string{"find", root}, prune("-exec", "ls", "-dEnb", "{}", "+")...)
	return stream(ctx, r, args, func(r *bufio.Reader) (image.Entry, error) { return parseList(r, root) }, f)
}

// works says whether a command ends well.
func works(ctx context.Context, r remote.Runner, args ...string) (bool, error) {
	err := r.Run(ctx, remote.Command{Args: args})
	if _, ran := remote.Status(err); !ran {
		return false, err
	}
	return err == nil, nil
}

// stream runs a command and parses what it prints until that ends.
func stream(ctx context.Context, r remote.Runner, args []string, parse func(*bufio.Reader) (image.Entry, error), f func(image.Entry) error) error {
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := r.Run(ctx, remote.Command{Args: args, Stdout: out})
		out.Close()
		done <- err
	}()
	b := bufio.NewReaderSize(in, 1<<20)
	var err error
	for err == nil {
		var e image.Entry
		if e, err = parse(b); err == nil {
			err = f(e)
		}
	}
	if err == io.EOF {
		err = nil
	}
	in.CloseWithError(io.ErrClosedPipe)
	ran := <-done
	// What vanishes while it is listed, or cannot be entered, makes find end with 1.
	if status, ok := remote.Status(ran); ok && status == 1 {
		ran = nil
	}
	if err != nil {
		return fmt.Errorf("list %q: %w", args[1], err)
	}
	return ran
}

// maxRecord bounds one object of a list, in bytes.
const maxRecord = 16 << 10

// read reads to the delimiter, which it leaves away.
func read(r *bufio.Reader, delim byte) (string, error) {
	var b []byte
	for {
		part, err := r.ReadSlice(delim)
		b = append(b, part...)
		switch {
		case len(b) > maxRecord:
			return "", errors.New("a record is too long")
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(b) > 0:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		default:
			return string(b[:len(b)-1]), nil
		}
	}
}

// types are the letters of find(1) and ls(1).
var types = map[byte]fs.FileMode{
	'f': 0, '-': 0, 'd': fs.ModeDir, 'l': fs.ModeSymlink, 'p': fs.ModeNamedPipe, 's': fs.ModeSocket,
	'b': fs.ModeDevice, 'c': fs.ModeDevice | fs.ModeCharDevice,
}

// parseGNU reads one record of gnuFormat.
func parseGNU(r *bufio.Reader) (image.Entry, error) {
	var e image.Entry
	head, err := read(r, 0)
	if err != nil {
		return e, err
	}
	f := strings.SplitN(head, "\t", 7)
	if len(f) != 7 {
		return e, fmt.Errorf("%q is no record of find", head)
	}
	if e.Name, err = read(r, 0); err != nil {
		return e, err
	}
	if e.Name == "" {
		e.Name = "."
	}
	if len(f[0]) != 1 {
		return e, fmt.Errorf("%q: unknown type %q", e.Name, f[0])
	}
	typ, ok := types[f[0][0]]
	if !ok {
		return e, fmt.Errorf("%q: unknown type %q", e.Name, f[0])
	}
	mode, err1 := strconv.ParseUint(f[1], 8, 12)
	uid, err2 := strconv.ParseUint(f[2], 10, 31)
	gid, err3 := strconv.ParseUint(f[3], 10, 31)
	size, err4 := strconv.ParseInt(f[4], 10, 64)
	at, err5 := parseSeconds(f[5])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return e, fmt.Errorf("%q: %w", e.Name, err)
	}
	e.Mode, e.UID, e.GID, e.ModTime = image.ModeOf(uint32(mode), typ), int(uid), int(gid), at
	if typ == 0 {
		e.Size = size
	}
	if typ == fs.ModeSymlink {
		e.Target = f[6]
	}
	return e, nil
}

// parseSeconds reads seconds with a fraction.
func parseSeconds(s string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	fraction = (fraction + "000000000")[:9]
	nsec, err := strconv.ParseInt(fraction, 10, 64)
	return time.Unix(sec, nsec).UTC(), err
}

// parseList reads a line of ls -dEnb:
//
//	-rw-r--r--   1 0        3           1234 2026-01-02 03:04:05.123456789 +0000 /etc/passwd
func parseList(r *bufio.Reader, root string) (image.Entry, error) {
	var e image.Entry
	line, err := read(r, '\n')
	if err != nil {
		return e, err
	}
	bad := func(why string) (image.Entry, error) { return e, fmt.Errorf("%q is no line of ls: %s", line, why) }
	rest := line
	next := func() string {
		rest = strings.TrimLeft(rest, " ")
		var field string
		field, rest, _ = strings.Cut(rest, " ")
		return field
	}
	mode, _, owner, group := next(), next(), next(), next()
	size := next()
	if strings.HasSuffix(size, ",") { // of a device: major and minor number
		next()
		size = "0"
	}
	day, clock, zone := next(), next(), next()
	name := rest
	if len(mode) < 10 {
		return bad("mode")
	}
	typ, ok := types[mode[0]]
	if !ok {
		if mode[0] != 'D' && mode[0] != 'P' { // doors and ports of illumos
			return bad("type")
		}
		typ = fs.ModeSocket
	}
	if typ == fs.ModeSymlink {
		if name, e.Target, ok = strings.Cut(name, " -> "); !ok {
			return bad("link")
		}
		if e.Target, err = unescape(e.Target); err != nil {
			return bad("link")
		}
	}
	perm, ok := permissions(mode[1:10])
	uid, err1 := strconv.ParseUint(owner, 10, 31)
	gid, err2 := strconv.ParseUint(group, 10, 31)
	bytes, err3 := strconv.ParseInt(size, 10, 64)
	at, err4 := time.Parse("2006-01-02 15:04:05.999999999 -0700", day+" "+clock+" "+zone)
	if err := errors.Join(err1, err2, err3, err4); err != nil || !ok {
		return bad(fmt.Sprint(err))
	}
	if name, err = unescape(name); err != nil {
		return bad("name")
	}
	e.Name = strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
	if e.Name == "" {
		e.Name = "."
	}
	e.Mode, e.UID, e.GID, e.ModTime = image.ModeOf(perm, typ), int(uid), int(gid), at.UTC()
	if typ == 0 {
		e.Size = bytes
	}
	return e, nil
}

// permissions reads the nine letters of ls(1).
func permissions(s string) (uint32, bool) {
	var m uint32
	for i := range 9 {
		bit := uint32(1) << (8 - i)
		special := uint32(0o4000) >> (i / 3)
		switch c := s[i]; {
		case c == '-':
		case c == "rwx"[i%3]:
			m |= bit
		case i%3 == 2 && (c == 's' || c == 't'):
			m |= bit | special
		case i%3 == 2 && (c == 'S' || c == 'T' || c == 'l' || c == 'L'):
			m |= special
		default:
			return 0, false
		}
	}
	return m, true
}

// unescape undoes ls -b: \ooo.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\\' {
			b.WriteByte('\\')
			i++
			continue
		}
		if i+4 > len(s) {
			return "", errors.New("an escape is cut short")
		}
		n, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			return "", err
		}
		b.WriteByte(byte(n))
		i += 3
	}
	return b.String(), nil
}
