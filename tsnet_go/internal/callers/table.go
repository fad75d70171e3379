// Package callers is the table in which a listener writes who is behind each connection,
// and from which Python reads it without a call into Go.
//
// Each connection has a slot. For every piece of bytes from the tailnet, the listener
// looks up who sent it in the node's own state, writes the answer into the slot if it has
// changed, and only then hands the bytes on. So what a reader finds after it has read a
// request is never older than that request.
//
// # Layout
//
// A slot is Size bytes: a version (8 bytes), the length of the answer in bytes
// (8 bytes), then the answer. The upper half of the version is the generation, which
// counts the connections that have used the slot. The lower half grows by two with
// every write and is odd during one. A version is never reused, so a decoded answer is
// valid for as long as the slot has its version.
//
// # Memory ordering
//
// A slot has one writer. Writer and reader use atomic operations of whole 8-byte
// words only. Go's atomic stores are releases in program order: odd version, length,
// answer, even version. The reader (callers.c) uses acquire loads: version, length,
// answer, version. If it loads any word of a newer write, then it also sees the odd
// version that came before that word, so its second version differs from its first.
// That follows from the C11 and Go memory models; it does not need the stronger
// ordering of x86. The socket orders a request after the write of its caller: the
// listener writes to it after the slot, and the reader reads from it before the slot.
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
	// Count is the number of slots. A connection without one is served too: Python then
	// calls tb_whois.
	Count = 4096
	// Size is the number of bytes of a slot. Pages that no answer reaches are never
	// touched, so a large slot costs address space but no memory.
	Size = 16 << 10
	// Limit is the number of bytes of the longest answer that fits a slot.
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
	free []int // used from the end, so that few slots are ever touched
}

// Shared returns the table of this process; the first call makes it.
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

// Address returns where the table begins.
func (t *Table) Address() uintptr { return uintptr(unsafe.Pointer(&t.words[0])) }

// Acquire takes a free slot and empties it. It returns nil if there is none.
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

// Index returns the slot's place in the table.
func (s *Slot) Index() int { return s.index }

// Generation returns the number that distinguishes this use of the slot from all others.
func (s *Slot) Generation() uint32 { return s.generation }

// Set writes the answer into the slot unless the slot has it already. An answer that is
// longer than Limit empties the slot, as an empty answer does: Python then calls tb_whois.
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

// Release gives the slot back. The answer stays until another connection acquires the
// slot, for a request that is still being read.
func (s *Slot) Release() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	s.table.free = append(s.table.free, s.index)
}
