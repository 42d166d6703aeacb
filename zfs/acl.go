package zfs

import "encoding/binary"

// Entries of an access control list (ace_t, sys/acl.h) for the three classes of a mode.
const (
	aceAllow = 0
	aceDeny  = 1

	aceOwner    = 0x1000
	aceGroup    = 0x2040 // ACE_GROUP | ACE_IDENTIFIER_GROUP
	aceEveryone = 0x4000

	aceRead    = 0x1
	aceWrite   = 0x2 | 0x4 // write data, append data
	aceDelete  = 0x40      // delete a child: part of w for a directory
	aceExecute = 0x20

	aceBase      = 0x20000 | 0x80 | 0x8 | 0x100000  // read ACL, attributes, named attributes, synchronize
	aceOwnerBase = 0x100 | 0x80000 | 0x40000 | 0x10 // write attributes, owner, ACL, named attributes
	aceSize      = 8                                // of an entry without an id
)

// trivialACL returns the list that says no more than mode does, as zfs_acl_chmod and
// acl_trivial_access_masks make it. illumos and FreeBSD decide by the list, not by the mode: one
// that disagrees is a silent change of permissions.
func trivialACL(mode uint64) []byte {
	var allow [3]uint32 // owner, group, others
	for i := range allow {
		bits := mode >> (6 - 3*i) & 7
		if bits&4 != 0 {
			allow[i] |= aceRead
		}
		if bits&2 != 0 {
			allow[i] |= aceWrite
			if mode&modeType == modeDir {
				allow[i] |= aceDelete
			}
		}
		if bits&1 != 0 {
			allow[i] |= aceExecute
		}
	}
	owner, group, others := allow[0], allow[1], allow[2]

	list := make([]byte, 0, 6*aceSize)
	entry := func(kind, who uint16, mask uint32) {
		list = binary.LittleEndian.AppendUint16(list, kind)
		list = binary.LittleEndian.AppendUint16(list, who)
		list = binary.LittleEndian.AppendUint32(list, mask)
	}
	if m := owner &^ group & others; m != 0 { // or the group's denial would hit the owner
		entry(aceAllow, aceOwner, m)
	}
	if m := (group | others) &^ owner; m != 0 {
		entry(aceDeny, aceOwner, m)
	}
	if m := others &^ group; m != 0 {
		entry(aceDeny, aceGroup, m)
	}
	entry(aceAllow, aceOwner, aceBase|aceOwnerBase|owner)
	entry(aceAllow, aceGroup, aceBase|group)
	entry(aceAllow, aceEveryone, aceBase|others)
	return list
}
