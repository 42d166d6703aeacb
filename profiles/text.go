package profiles

import (
	"regexp"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// Setters of text files. They keep comments, order and everything else, and return the text as it
// was if it says already what it should.

// lines cuts a text into lines without their ends; a last line without an end counts.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// fields returns the words of a line, none of a comment.
func fields(line string) []string {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return nil
	}
	return strings.Fields(line)
}

func unlines(l []string) string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\n") + "\n"
}

// setAssignment sets KEY=value as in etc/default, policy.conf and sysctl.d. Some readers of such
// files take the first line, some the last, so every line that is set gets the value; if none is,
// the first commented default (#KEY=…) is replaced in place, else a line is added at the end.
func setAssignment(text, key, value string) string {
	l := lines(text)
	quoted := regexp.QuoteMeta(key)
	set := regexp.MustCompile(`^\s*` + quoted + `\s*=\s*(.*?)\s*$`)
	found := false
	for i, line := range l {
		if m := set.FindStringSubmatch(line); m != nil {
			found = true
			if m[1] != value {
				l[i] = key + "=" + value
			}
		}
	}
	if !found {
		l = replaceOrAppend(l, regexp.MustCompile(`^#\s?`+quoted+`\s*=`), key+"="+value)
	}
	return keepIfSame(text, l)
}

// setAudit sets "key = value" as in auditd.conf(5), like setAssignment: without the blanks auditd does
// not start.
func setAudit(text, key, value string) string {
	l := lines(text)
	quoted := regexp.QuoteMeta(key)
	set := regexp.MustCompile(`^\s*` + quoted + `\s*=`)
	want := key + " = " + value
	found := false
	for i, line := range l {
		if set.MatchString(line) {
			found = true
			if strings.Join(strings.Fields(line), " ") != want {
				l[i] = want
			}
		}
	}
	if !found {
		l = replaceOrAppend(l, regexp.MustCompile(`^#\s?`+quoted+`\s*=`), want)
	}
	return keepIfSame(text, l)
}

// setDefinition sets "KEY value" as in login.defs, like setAssignment.
func setDefinition(text, key, value string) string {
	l := lines(text)
	quoted := regexp.QuoteMeta(key)
	set := regexp.MustCompile(`^\s*` + quoted + `\s+(\S+)\s*$`)
	found := false
	for i, line := range l {
		if m := set.FindStringSubmatch(line); m != nil {
			found = true
			if m[1] != value {
				l[i] = key + "\t" + value
			}
		}
	}
	if !found {
		l = replaceOrAppend(l, regexp.MustCompile(`^#\s?`+quoted+`\s+\S+\s*$`), key+"\t"+value)
	}
	return keepIfSame(text, l)
}

// definition returns the value of KEY in a text as setDefinition writes it.
func definition(text, key string) string {
	value := ""
	for _, line := range lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			value = f[1]
		}
	}
	return value
}

func replaceOrAppend(l []string, commented *regexp.Regexp, line string) []string {
	if i := slices.IndexFunc(l, commented.MatchString); i >= 0 {
		l[i] = line
		return l
	}
	return append(l, line)
}

func keepIfSame(text string, l []string) string {
	if t := unlines(l); strings.TrimSuffix(t, "\n") != strings.TrimSuffix(text, "\n") {
		return t
	}
	return text
}

// setKeyword sets a keyword of sshd_config(5): the first value counts, keywords know no case, and
// what follows a Match line holds only for some connections. An Include in front of a value takes
// precedence too. So the value is set where it stands before the first of these lines, else put
// in place of a commented default there, else right before that line.
func setKeyword(text, key, value string) string {
	l := lines(text)
	end := len(l)
	for i, line := range l {
		if k, _ := keyword(line); k == "match" || k == "include" {
			end = i
			break
		}
	}
	head, want := l[:end], key+" "+value
	i := slices.IndexFunc(head, func(line string) bool {
		k, _ := keyword(line)
		return k == strings.ToLower(key)
	})
	if i >= 0 {
		if _, v := keyword(head[i]); v == value {
			return text
		}
		l[i] = want
		return unlines(l)
	}
	commented := regexp.MustCompile(`(?i)^#` + regexp.QuoteMeta(key) + `\s+\S+\s*$`)
	if i := slices.IndexFunc(head, commented.MatchString); i >= 0 {
		l[i] = want
		return unlines(l)
	}
	return unlines(slices.Insert(l, end, want))
}

// keyword splits a line of sshd_config into its keyword in lower case and its arguments.
func keyword(line string) (key, value string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", ""
	}
	i := strings.IndexAny(line, " \t=")
	if i < 0 {
		return strings.ToLower(line), ""
	}
	value = strings.TrimLeft(line[i:], " \t")
	value = strings.TrimLeft(strings.TrimPrefix(value, "="), " \t")
	if unquoted, ok := strings.CutPrefix(value, `"`); ok && strings.HasSuffix(unquoted, `"`) {
		value = strings.TrimSuffix(unquoted, `"`)
	}
	return strings.ToLower(line[:i]), value
}

// setRecord sets the line of a file of colon-separated records whose first field is that of the
// record, such as passwd(5), or adds it at the end.
func setRecord(text string, record []string) string {
	l := lines(text)
	want := strings.Join(record, ":")
	for i, line := range l {
		if name, _, _ := strings.Cut(line, ":"); name == record[0] {
			l[i] = want
			return keepIfSame(text, l)
		}
	}
	return keepIfSame(text, append(l, want))
}

// isRecord reports whether a line of such a file is one: no comment, nor an entry of NIS, which is filled
// from elsewhere (compat of nsswitch.conf(5)).
func isRecord(line string) bool { return line != "" && !strings.ContainsAny(line[:1], "#+-") }

// records returns the fields of the records of such a file.
func records(text string) [][]string {
	var all [][]string
	for _, line := range lines(text) {
		if isRecord(line) {
			all = append(all, strings.Split(line, ":"))
		}
	}
	return all
}

// editRecords lets change edit the fields of every record in place.
func editRecords(text string, change func(fields []string)) string {
	l := lines(text)
	for i, line := range l {
		if isRecord(line) {
			f := strings.Split(line, ":")
			change(f)
			l[i] = strings.Join(f, ":")
		}
	}
	return keepIfSame(text, l)
}

// setFstab sets the line of fstab(5) or crypttab(5) whose field number key is that of the line,
// counted from 0, or adds it at the end.
func setFstab(text string, key int, fields ...string) string {
	l := lines(text)
	want := strings.Join(fields, " ")
	for i, line := range l {
		f := strings.Fields(line)
		if len(f) > key && !strings.HasPrefix(f[0], "#") && f[key] == fields[key] {
			if !slices.Equal(f, fields) {
				l[i] = want
			}
			return keepIfSame(text, l)
		}
	}
	return keepIfSame(text, append(l, want))
}

// didYouMean returns `; did you mean "x"?`, or nothing.
func didYouMean(given string, names []string) string {
	if s := hcltext.Closest(given, names); s != "" {
		return `; did you mean "` + s + `"?`
	}
	return ""
}
