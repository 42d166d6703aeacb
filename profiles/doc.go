// Package profiles says what a hardened image is, makes it so, and checks it.
//
// A [Control] is one requirement, such as "root cannot log in over ssh", with its reason, its
// references and, for every operating system it exists on, a [Method]: edits of files, properties
// of SMF services, settings of the zone, requirements on the dock (the host around the zone), or
// a check. [Controls] is the catalogue; docs/controls.md is made from it.
//
// A [Profile] is a named set of controls, one HCL file; [Load] reads those that are built in and
// [Parse] those of users. [Profile.Select] joins it with the parameters and waivers of an image.
// [Apply] then edits a [Root] and [Audit] reports on one:
//
//	p, err := profiles.Load("isc-baseline")
//	s, err := p.Select("illumos", set, waivers)
//	err = profiles.Apply(tree, s, epoch)
//	report, err := profiles.Audit(tree, s, today)
//
// Auditing is applying on an [Overlay]: a control holds exactly when applying it would change
// nothing, so that no second definition can drift from the first. Edits are idempotent, keep
// comments and order of the files they edit, and do not touch what is already right.
//
// A [Layout] is what the image of a spec runs besides its files: users, services, scratch space,
// resource limits. [Layout.Apply] bakes it in, as SMF manifests (smf(7), service_bundle(5), the
// DTD /usr/share/lib/xml/dtd/service_bundle.dtd.1) or systemd units (systemd.exec(5)); [Layout.Zonecfg]
// writes the command file for zonecfg(8) and [Layout.Dock] what the host has to provide.
package profiles

//go:generate go run ../internal/gen/controls -o ../docs/controls.md
