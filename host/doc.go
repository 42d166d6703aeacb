// Package host keeps golden images and their instances on this machine: it imports a verified
// image once, clones it, checks instances for drift against the signed content manifest, and
// resets them.
//
// What the host remembers stands in its state folder, which only its owner can enter:
//
//	state.json           images, epochs acquired, instances: a [State] (docs/format.md)
//	images/HEX/          config and content manifest of an image
//	content/             file content by digest: the golden copies of the platform dir
//	instances/NAME/      baseline of an instance: what was written, by inode and change time
//	locks/, lock         taken while something is worked on; empty, and never removed
//
// Losing it loses the instances' baselines and, worse, the epochs: the host would accept old
// releases again. A damaged state is therefore an error and never replaced by an empty one.
//
// Every operation notes in the state what it begins. One that was killed is finished or undone
// by the next [Open]: an instance is either what it was or completely what it was to become.
//
// Where instances live is a [Platform]'s matter.
package host
