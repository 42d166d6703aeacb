package zfs

// A streamSource has the objects of a stream.
type streamSource struct {
	*Stream
	tables []table
}

func newStreamSource(s *Stream) *streamSource { return &streamSource{s, s.tables()} }

func (s *streamSource) len() int { return len(s.nodes) + len(s.tables) }

// at returns the i-th object: the root directory stands between the tables.
func (s *streamSource) at(i int) numbered {
	before := objRoot - 1
	switch {
	case i < before:
		return numbered{s.Stream, s.tables[i].number, nil, &s.tables[i]}
	case i == before:
		return numbered{s.Stream, objRoot, s.root, nil}
	case i <= len(s.tables):
		return numbered{s.Stream, s.tables[i-1].number, nil, &s.tables[i-1]}
	}
	n := s.nodes[i-len(s.tables)]
	return numbered{s.Stream, n.number, n, nil}
}

func (s *streamSource) name(i int) string {
	if o := s.at(i); o.node != nil {
		return o.node.Path
	}
	return typeName(s.at(i).table.kind)
}

func (s *streamSource) object(i int) (object, error) {
	o := s.at(i)
	if o.node == nil {
		return object{number: o.number, kind: o.table.kind}, nil
	}
	return s.Stream.object(o.node)
}

func (s *streamSource) open(i int) (blocks, error) {
	o := s.at(i)
	var z *zap
	var err error
	switch {
	case o.node == nil:
		z, err = newZAP(o.number, o.table.entries(), o.table.fat)
	case o.node.Mode.IsDir():
		z, err = newZAP(o.number, o.node.dirEntries(), false)
	default:
		size, open := s.content(o.node)
		f := &fileBlocks{size: size}
		if size > 0 {
			f.Content, err = open()
		}
		return f, err
	}
	return zapBlocks{z}, err
}

// fileBlocks are the blocks of a file.
type fileBlocks struct {
	Content // nil if size is 0
	size    int64
}

func (f *fileBlocks) shape() (int, int64, []Extent) {
	if f.Content == nil {
		return fileBlock(0), 0, nil
	}
	x := f.Extents()
	if x == nil {
		x = []Extent{}
	}
	return fileBlock(f.size), f.size, x
}

func (f *fileBlocks) block(id uint64, p []byte) error {
	off := int64(id) * int64(len(p))
	return readBlock(f.Content, p, int(min(int64(len(p)), f.size-off)), off)
}

func (f *fileBlocks) Close() error {
	if f.Content == nil {
		return nil
	}
	return f.Content.Close()
}

// zapBlocks are the blocks of a zap.
type zapBlocks struct{ z *zap }

func (z zapBlocks) shape() (int, int64, []Extent) {
	return z.z.blockSize(), int64(z.z.blocks() * z.z.blockSize()), nil
}

func (z zapBlocks) block(id uint64, p []byte) error {
	clear(p)
	z.z.block(int(id), p)
	return nil
}

func (z zapBlocks) Close() error { return nil }

// memBlocks are the blocks of an object that is in memory.
type memBlocks struct {
	size int // of each
	data []byte
}

func (m memBlocks) shape() (int, int64, []Extent) { return m.size, int64(len(m.data)), nil }

func (m memBlocks) block(id uint64, p []byte) error {
	clear(p[copy(p, m.data[int(id)*m.size:]):])
	return nil
}

func (m memBlocks) Close() error { return nil }
