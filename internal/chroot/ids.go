package chroot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// span is how many ids a tree may use. 65534 is nobody's.
const span = 65536

// maxIDs bounds what is read of a file of subordinate ids, in bytes.
const maxIDs = 1 << 20

// subordinate returns the first of the ids that the file gives to the user: subuid(5), subgid(5).
func subordinate(file string, u *user.User) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	first, err := findIDs(f, u)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return first, nil
}

func findIDs(r io.Reader, u *user.User) (int, error) {
	lines := bufio.NewScanner(io.LimitReader(r, maxIDs))
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		if len(f) != 3 || f[0] != u.Username && f[0] != u.Uid {
			continue
		}
		first, err1 := strconv.Atoi(f[1])
		count, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil && first > 0 && count >= span-1 {
			return first, nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, errors.New("no line gives user " + strconv.Quote(u.Username) + " " + strconv.Itoa(span-1) + " ids")
}
