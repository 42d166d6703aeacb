package zfs

import "encoding/binary"

// Types of values in an nvlist (data_type_t, sys/nvpair.h).
const (
	nvBoolean   = 1
	nvUint64    = 8
	nvString    = 9
	nvByteArray = 10
	nvList      = 19
	nvListArray = 20
)

// An nvlist is a list of names with values in the encoding XDR. Names are written in the order in
// which they are added.
type nvlist struct{ b []byte }

func newNVList() *nvlist {
	return &nvlist{binary.BigEndian.AppendUint32(make([]byte, 4), 1)} // version 0, names are unique
}

// pair appends a value. Its size as a host keeps it in memory (i_nvp_size) must be told.
func (l *nvlist) pair(name string, kind, elements uint32, value []byte, inMemory int) {
	be := binary.BigEndian
	start := len(l.b)
	l.b = be.AppendUint32(l.b, uint32(5*4+roundUp(len(name), 4)+len(value)))
	l.b = be.AppendUint32(l.b, uint32(roundUp(16+len(name)+1, 8)+roundUp(inMemory, 8)))
	l.b = be.AppendUint32(l.b, uint32(len(name)))
	l.b = pad(append(l.b, name...), start, 4)
	l.b = be.AppendUint32(l.b, kind)
	l.b = be.AppendUint32(l.b, elements)
	l.b = append(l.b, value...)
}

func (l *nvlist) boolean(name string) { l.pair(name, nvBoolean, 0, nil, 0) }

func (l *nvlist) number(name string, v uint64) {
	l.pair(name, nvUint64, 1, binary.BigEndian.AppendUint64(nil, v), 8)
}

func (l *nvlist) text(name, s string) {
	l.pair(name, nvString, 1, pad(append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...), 0, 4), len(s)+1)
}

func (l *nvlist) list(name string, v *nvlist) { l.pair(name, nvList, 1, v.end(), nvListSize) }

func (l *nvlist) lists(name string, vs ...*nvlist) {
	var b []byte
	for _, v := range vs {
		b = append(b, v.end()...)
	}
	l.pair(name, nvListArray, uint32(len(vs)), b, len(vs)*(8+nvListSize))
}

const nvListSize = 24 // of nvlist_t

// end returns the list with its end.
func (l *nvlist) end() []byte { return append(l.b, 0, 0, 0, 0, 0, 0, 0, 0) }

// packed returns the list as nvlist_pack does.
func (l *nvlist) packed() []byte { return append([]byte{1, 1, 0, 0}, l.end()...) }
