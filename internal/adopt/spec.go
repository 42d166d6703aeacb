package adopt

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Spec returns a commented spec for the service. It is valid as it is, for a base that [ParseSpec]
// finds. Without a source in the facts, the base is an empty skeleton and what the service is made of
// has to be laid over it.
func (a *Adoption) Spec(profile string) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	note := func(format string, args ...any) { line("# %s", hcltext.Comment(fmt.Sprintf(format, args...))) }
	os, arch := a.Facts.OS, a.Facts.Arch
	if !slices.Contains(builder.Architectures, arch) {
		arch = "amd64"
	}
	note("A proposal for the service %s, as %s says it. Read it, cut it, try it: iscadm validate, then build.", a.Name, a.Defined)
	for _, n := range a.Notes {
		note("- %s", n)
	}
	line("")
	line("image {")
	line("name = %s", hcltext.Literal(a.Name))
	line("version = %s", hcltext.Literal("0.1.0"))
	line("os = %s", hcltext.Literal(os))
	line("arch = %s", hcltext.Literal(arch))
	line("}")
	line("")
	line("base {")
	if a.Facts.Release != "" {
		note("%s", a.Facts.Release)
	}
	line("source = %s", hcltext.Literal(cmp.Or(a.Facts.Source, "skeleton:"+os)))
	line("}")
	a.filesOf(line, note)
	a.profileOf(line, note, profile)
	a.secretsOf(line, note)
	for _, u := range a.Users {
		c := ""
		line("")
		l := profiles.Layout{OS: os, Users: []profiles.User{u}}
		if a.Facts.Source != "" && !a.NoUser {
			c = "# "
			note("The base has this account already.")
		} else if len(l.Check()) > 0 {
			c = "# does not fit: "
		}
		line("%suser {", c)
		line("%s  name = %s", c, hcltext.Literal(u.Name))
		line("%s  uid = %d", c, u.UID)
		if u.GID != nil {
			line("%s  gid = %d", c, *u.GID)
		}
		line("%s}", c)
	}
	a.serviceOf(line, note)
	line("")
	line("network {")
	line("outbound = [] # what it may connect to, such as \"53/udp\", \"443/tcp\"")
	line("}")
	a.writableOf(line, note)
	return hclwrite.Format(b.Bytes())
}

// writableOf lets the service write where it does.
func (a *Adoption) writableOf(line, note func(string, ...any)) {
	fits := func(l profiles.Layout) bool {
		l.OS = a.Facts.OS
		return len(l.Check()) == 0
	}
	for _, v := range a.Volumes {
		line("")
		note("Its data. It outlives a reset, and is empty at first, whatever the base has there.")
		c := ""
		if !fits(profiles.Layout{Volumes: []profiles.Volume{{Path: v}}}) {
			c = "# does not fit: "
		}
		line("%svolume {", c)
		line("%s  path = %s", c, hcltext.Comment(hcltext.Literal(v)))
		line("# size = \"10GiB\"")
		line("%s}", c)
	}
	var patterns, made []string
	for _, w := range a.Writable {
		pattern := w + "/**"
		if fits(profiles.Layout{Mutables: []profiles.Mutable{{Paths: []string{pattern}, Rule: "any"}}}) {
			patterns = append(patterns, pattern)
		} else {
			note("does not fit: mutable %s", w)
		}
	}
	for _, m := range a.Made {
		if !strings.ContainsAny(m, " \t\"'%\\") {
			made = append(made, m)
		}
	}
	if len(patterns) > 0 {
		line("")
		note("It writes here, too; a reset puts it back.")
		line("mutable {")
		line("paths = [%s]", literals(patterns))
		line("rule = \"any\"")
		line("}")
	}
	if len(made) > 0 && a.Facts.OS == profiles.Linux {
		user, group := cmp.Or(a.Service.User, "root"), cmp.Or(a.Service.Group, "-")
		var text strings.Builder
		for _, m := range made {
			fmt.Fprintf(&text, "d %s 0755 %s %s -\n", m, user, group)
		}
		line("")
		note("Folders that its manager makes at every start (tmpfiles.d(5)).")
		line("file {")
		line("path = %s", hcltext.Literal("/etc/tmpfiles.d/"+a.Name+".conf"))
		line("content = %s", hcltext.Literal(text.String()))
		line("mode = \"0644\"")
		line("}")
	}
}

// filesOf lists what the service is made of.
func (a *Adoption) filesOf(line, note func(string, ...any)) {
	line("")
	if a.Facts.Source != "" {
		note("What the service is made of. A smaller base with only that is the better image:")
	} else {
		note("What the service is made of. Bring it here, and lay it over the base:")
		line("# tree {")
		line("#   path   = \"/\"")
		line("#   source = \"tar:%s.tar\"", a.Name)
		line("# }")
	}
	width := 0
	for _, f := range a.Files {
		width = max(width, min(len(f.Path), 60))
	}
	var packages []string
	for _, f := range a.Files {
		of := ""
		if f.Package != "" {
			of = ", package " + f.Package
			if !slices.Contains(packages, f.Package) {
				packages = append(packages, f.Package)
			}
		}
		note("  %-*s %s%s", width, f.Path, f.Why, of)
	}
	slices.Sort(packages)
	if len(packages) > 0 {
		note("Packages: %s", strings.Join(packages, " "))
	}
}

// profileOf says what the profile would do to the service.
func (a *Adoption) profileOf(line, note func(string, ...any), profile string) {
	line("")
	for _, name := range a.Edited {
		note("The profile changes %s: iscadm audit shows how.", name)
	}
	if len(a.Broken) > 0 {
		note("These controls fail as the root stands, and fail a build until that is put right, or waived:")
	}
	for _, c := range a.Broken {
		note("- %s %s", c.ID, c.Title)
		const most = 3
		for _, f := range c.Findings[:min(len(c.Findings), most)] {
			note("    %s: %.200s", f.Path, f.Problem)
		}
		if n := len(c.Findings) - most; n > 0 {
			note("    and %d more", n)
		}
	}
	line("profile {")
	if strings.HasSuffix(profile, ".hcl") {
		line("source = %s", hcltext.Literal(profile))
	} else {
		line("name = %s", hcltext.Literal(profile))
	}
	for _, c := range a.Broken {
		line("# waive {")
		line("#   control = %s", hcltext.Literal(c.ID))
		line("#   reason  = \"…\"")
		line("#   until   = \"YYYY-MM-DD\"")
		line("# }")
	}
	line("}")
}

// secretsOf proposes to remove the secrets that were found.
func (a *Adoption) secretsOf(line, note func(string, ...any)) {
	var paths []string
	for _, c := range a.Broken {
		for _, f := range c.Findings {
			if p := "/" + f.Path; c.ID == "X02" && f.Path != "" && !slices.Contains(paths, p) && !strings.ContainsAny(p, "*?[\\") {
				paths = append(paths, p)
			}
		}
	}
	if len(paths) == 0 {
		return
	}
	line("")
	note("Secrets belong to instances, not to an image that all of them share. If the service does without:")
	line("# remove {")
	line("#   paths = [%s]", hcltext.Comment(literals(paths)))
	line("# }")
}

// serviceOf writes the service. What a layout would refuse becomes a comment.
func (a *Adoption) serviceOf(line, note func(string, ...any)) {
	s := a.Service
	l := profiles.Layout{OS: a.Facts.OS, Name: a.Name}
	fits := func(change func(*profiles.Service)) bool {
		try := profiles.Service{Name: "app", Exec: "/x"}
		change(&try)
		l.Services = []profiles.Service{try}
		return len(l.Check()) == 0
	}
	line("")
	note("It runs in a sandbox: no new privileges, the system read-only, no homes, a /tmp and devices of its own.")
	if dir := path.Dir(strings.Fields(s.Exec)[0]); strings.HasPrefix(dir+"/", "/home/") || strings.HasPrefix(dir+"/", "/root/") || strings.HasPrefix(dir+"/", "/tmp/") {
		note("The program is below %s, which it cannot see in there: move it to /opt.", dir)
	}
	line("service {")
	put := func(ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if !ok {
			text = "# does not fit: " + hcltext.Comment(text)
		}
		line("%s", text)
	}
	line("name = %s", hcltext.Literal(a.Name))
	if s.Description != "" {
		put(fits(func(t *profiles.Service) { t.Description = s.Description }), "description = %s", hcltext.Literal(s.Description))
	}
	if fits(func(t *profiles.Service) { t.Exec = s.Exec }) {
		line("exec = %s", hcltext.Literal(s.Exec))
	} else {
		put(false, "exec = %s", hcltext.Literal(s.Exec))
		line("exec = %s", hcltext.Literal("/opt/"+a.Name+"/bin/"+a.Name))
	}
	if s.User != "" {
		put(fits(func(t *profiles.Service) { t.User = s.User }), "user = %s", hcltext.Literal(s.User))
	}
	if s.Group != "" {
		put(fits(func(t *profiles.Service) { t.Group = s.Group }), "group = %s", hcltext.Literal(s.Group))
	}
	if s.Directory != "" {
		put(fits(func(t *profiles.Service) { t.Directory = s.Directory }), "directory = %s", hcltext.Literal(s.Directory))
	}
	if s.EnvironmentFile != "" {
		put(fits(func(t *profiles.Service) { t.EnvironmentFile = s.EnvironmentFile }), "environment_file = %s", hcltext.Literal(s.EnvironmentFile))
	}
	if len(s.Environment) > 0 {
		line("environment = {")
		for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
			put(fits(func(t *profiles.Service) { t.Environment = map[string]string{k: s.Environment[k]} }), "%s = %s", hcltext.Literal(k), hcltext.Literal(s.Environment[k]))
		}
		line("}")
	}
	if len(s.Listen) > 0 {
		line("listen = [%s]", literals(s.Listen))
	} else {
		line("# listen = [\"8080/tcp\"]")
	}
	if len(s.Privileges) > 0 {
		put(fits(func(t *profiles.Service) { t.Privileges = s.Privileges }), "privileges = [%s]", literals(s.Privileges))
	}
	if len(s.After) > 0 {
		put(fits(func(t *profiles.Service) { t.After = s.After }), "after = [%s]", literals(s.After))
	}
	line("}")
}

func literals(all []string) string {
	var out []string
	for _, s := range all {
		out = append(out, hcltext.Literal(s))
	}
	return strings.Join(out, ", ")
}
