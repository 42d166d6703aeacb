package profiles

import (
	"fmt"
	"strings"
	"testing"
)

const longPassword = "a much longer password than one block of a digest, sixty-four bytes and more of it"

// TestCrypt: hashes by glibc and openssl-passwd(1), and of the specification of SHA-crypt.
func TestCrypt(t *testing.T) {
	for _, tt := range []struct{ password, hash string }{
		{"", "$1$saltsalt$5Jhcit4zN9UlGiA0txPkO0"},
		{"root", "$1$saltsalt$eddF1Fgeo8xl8zwwEHZMo."},
		{longPassword, "$1$saltsalt$WtaMTaasKryh6/WKjoSPM."},
		{"", "$1$abc$Or2rbeUYTvt12aiVzMuS/."},
		{"", "$5$abc$bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8"},
		{"root", "$5$saltsalt$WLULcjGb361y/Bqz7vlF6palp.BldUHqPDoBcf37xmB"},
		{longPassword, "$5$saltsalt$NoLeo9UgaVf./r8dhKh3K/Hh5PuDPpVJ9ySRI0SIcRC"},
		{"Hello world!", "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"},
		{"", "$6$abc$mJP3a6FyA8uCnzRtlnNypPwjnvpi5TP9qOrInzrfDmwxUQG38PkpCPdqfTb8JQfAngapMxeim4AZ..hSdRRzD."},
		{"webd", "$6$saltsalt$NHOmLWPLOqSdXnBqyPrLrt/6n/tcRgVxwQ5rmNnf0QChaXwgvVJh6wj4h6N5dx8/xO2qdRLqmW5nAa3WZENpW1"},
		{longPassword, "$6$saltsalt$w86cDTb/DmC0XrV30sGhWYPGYipIIuU04gTcs.ypPf7p35EYAd86NGDRzRy5g9MB01XJY28dPB.wj062u3nO41"},
	} {
		h, ok, err := parseCrypt(tt.hash)
		if !ok || err != nil {
			t.Errorf("%s: %v, %v", tt.hash, ok, err)
			continue
		}
		if !h.matches(tt.password) {
			t.Errorf("%s is of %q", tt.hash, tt.password)
		}
		if h.matches(tt.password + "x") {
			t.Errorf("%s is not of %q", tt.hash, tt.password+"x")
		}
	}
}

func TestGuessable(t *testing.T) {
	const weak, hard = "$6$saltsalt$NHOmLWPLOqSdXnBqyPrLrt/6n/tcRgVxwQ5rmNnf0QChaXwgvVJh6wj4h6N5dx8/xO2qdRLqmW5nAa3WZENpW1", "$1$saltsalt$WtaMTaasKryh6/WKjoSPM."
	many := strings.Repeat("x:"+hard+":\n", maxTried+5)
	for _, tt := range []struct{ name, shadow, finding, note string }{
		{"the account's name", "webd:" + weak + ":1\n", `account "webd" has a password that is guessed at once`, ""},
		{"another's name", "smith:" + weak + ":1\n", "", ""},
		{"root's", "bin:$1$saltsalt$eddF1Fgeo8xl8zwwEHZMo.:1\n", `account "bin" has a password that is guessed`, ""},
		{"empty, hashed", "a:$5$abc$bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8:\n", `account "a" has a password that is guessed`, ""},
		{"empty", "a::\n", `account "a" has an empty password`, ""},
		{"locked", "a:!" + weak + ":\nb:*LK*:\nc:NP:\n", "", ""},
		{"good", "a:" + hard + ":1\n", "", ""},
		{"other schemes", "a:$y$j9T$salt$hash:1\n", "", `account "a" has a hash of yescrypt, which no password is tried with`},
		{"costly", "a:$6$rounds=999999999$x$y:1\n", "", "999999999 rounds"},
		{"no number", "a:$6$rounds=-1$x$y:1\n", "", "no password is tried"},
		{"no salt", "a:$5$$x:1\n", "", ""},
		{"long name", strings.Repeat("n", 5000) + ":$6$s$x:1\n", "", ""},
		{"many", many, "", fmt.Sprintf("is not among the first %d", maxTried)},
	} {
		in, err := checkGuessable(newTree(t, map[string]string{"etc/shadow": tt.shadow}), nil)
		if err != nil {
			t.Fatal(err)
		}
		for what, f := range map[string]struct {
			got  []Finding
			want string
		}{"finding": {in.Findings, tt.finding}, "untested": {in.Untested, tt.note}} {
			if f.want == "" && len(f.got) > 0 || f.want != "" && (len(f.got) == 0 || !strings.Contains(f.got[0].Problem, f.want)) {
				t.Errorf("%s: %s %v, want %q", tt.name, what, f.got, f.want)
			}
		}
	}
}

func FuzzCrypt(f *testing.F) {
	for _, s := range []string{"$1$saltsalt$eddF1Fgeo8xl8zwwEHZMo.", "$5$rounds=10000$saltstringsaltst$x", "$6$$", "$5$rounds=", "", "$$$$"} {
		f.Add(s, "root")
	}
	f.Fuzz(func(t *testing.T, s, password string) {
		h, ok, err := parseCrypt(s)
		if !ok || err != nil || len(password) > maxName {
			return
		}
		if h.rounds > maxRounds {
			t.Fatalf("%q: %d rounds", s, h.rounds)
		}
		h.rounds = min(h.rounds, 10) // of what is not about rounds
		h.matches(password)
	})
}
