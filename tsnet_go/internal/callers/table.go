// Package callers is the table in which the bridge writes who is behind each
// connection, and from which Python reads it without a call into Go.
//
// A connection has a slot. For every piece that arrives from the tailnet the bridge
// asks the node's own state who sent it, writes the answer into the slot if it is
// new, and only then hands the piece on. So what a reader finds after it has read a
// request is never older than that request.
//
// # Layout
//
// A slot is Size bytes: a version (8 bytes), the length of the answer in bytes
// (8 bytes), then the answer. The upper half of the version is the generation, which
// counts the connections that have used the slot. The lower half grows by two with
// every write and is odd during one. A version never comes back, so an answer that
// was decoded at one version holds for as long as the slot shows it.
//
// # Memory ordering
//
// A slot has one writer. Writer and reader use atomic operations of whole 8-byte
// words only. Go's atomic stores are releases in program order: odd version, length,
// answer, even version. The reader (callers.c) uses acquire loads: version, length,
// answer, version. If it loads any word of a newer write, then it also sees the odd
// version that came before that word, so its second version differs from its first.
// That follows from the C11 and Go memory models; it does not need the stronger
// ordering of x86. What orders a request after its own write is the socket: the
// bridge writes to it after the slot, and the reader reads from it before the slot.
package callers

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// Count is the number of slots. A connection that gets none is served as well:
	// its caller is asked for by a call.
	Count = 4096
	// Size is the number of bytes of a slot. Pages that no answer reaches are never
	// touched, so a larger slot costs address space and no memory.
	Size = 16 << 10
	// Limit is the number of bytes of the longest answer that a slot holds.
	Limit = Size - 8*headerWords

	headerWords     = 2
	versionWord     = 0
	lengthWord      = 1
	slotWords       = Size / 8
	generationShift = 32
)

// Table is an array of slots.
type Table struct {
	words []uint64

	mu   sync.Mutex
	free []int // the last one is taken first: few slots are ever touched
}

// Shared returns the one table of this process, which the first call makes.
var Shared = sync.OnceValues(NewTable)

// NewTable makes a table of Count slots outside Go's heap, where it stays for the
// life of the process.
func NewTable() (*Table, error) {
	memory, err := unix.Mmap(-1, 0, Count*Size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mapping the table of callers: %w", err)
	}
	return newTable(unsafe.Slice((*uint64)(unsafe.Pointer(&memory[0])), len(memory)/8)), nil
}

func newTable(words []uint64) *Table {
	t := &Table{words: words}
	for i := len(words)/slotWords - 1; i >= 0; i-- {
		t.free = append(t.free, i)
	}
	return t
}

// Address is where the table begins.
func (t *Table) Address() uintptr { return uintptr(unsafe.Pointer(&t.words[0])) }

// Acquire takes a free slot and empties it; it returns nil if there is none.
func (t *Table) Acquire() *Slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) == 0 {
		return nil
	}
	index := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := &Slot{table: t, index: index, words: t.words[index*slotWords : (index+1)*slotWords]}
	// The version is odd while the slot changes hands: from the first store on, a
	// reader that belongs to the earlier connection finds another generation.
	s.version = (s.words[versionWord]>>generationShift + 1) << generationShift
	s.generation = uint32(s.version >> generationShift)
	s.store(nil)
	return s
}

// Slot is one connection's place in the table. Only one goroutine at a time may use it.
type Slot struct {
	table      *Table
	index      int
	generation uint32
	words      []uint64
	version    uint64
	last       []byte // what the slot holds
}

// Index is the slot's place in the table.
func (s *Slot) Index() int { return s.index }

// Generation tells this connection's use of the slot from all others.
func (s *Slot) Generation() uint32 { return s.generation }

// Set writes the answer into the slot, unless it is there already. One that is longer
// than Limit empties the slot, as an empty one does: then the reader has to call.
func (s *Slot) Set(answer []byte) {
	if len(answer) > Limit {
		answer = nil
	}
	if !bytes.Equal(answer, s.last) {
		s.store(answer)
	}
}

func (s *Slot) store(answer []byte) {
	s.last = append(s.last[:0], answer...)
	atomic.StoreUint64(&s.words[versionWord], s.version+1)
	atomic.StoreUint64(&s.words[lengthWord], uint64(len(answer)))
	for i := headerWords; len(answer) > 0; i++ {
		var word [8]byte
		answer = answer[copy(word[:], answer):]
		atomic.StoreUint64(&s.words[i], binary.NativeEndian.Uint64(word[:]))
	}
	s.version += 2
	atomic.StoreUint64(&s.words[versionWord], s.version)
}

// Release gives the slot back. The answer stays until another connection takes the
// slot, for a request that is still being read.
func (s *Slot) Release() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	s.table.free = append(s.table.free, s.index)
}
