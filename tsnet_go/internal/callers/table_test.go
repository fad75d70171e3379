package callers

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// read is callers.c in Go. It returns the answer of a generation unless a write is in
// progress.
func read(t *Table, index int, generation uint32) (answer []byte, ok bool) {
	words := t.words[index*slotWords : (index+1)*slotWords]
	version := atomic.LoadUint64(&words[versionWord])
	if version&1 == 1 || uint32(version>>generationShift) != generation {
		return nil, false
	}
	length := atomic.LoadUint64(&words[lengthWord])
	if length > Limit {
		return nil, false
	}
	for i := headerWords; len(answer) < int(length); i++ {
		answer = binary.NativeEndian.AppendUint64(answer, atomic.LoadUint64(&words[i]))
	}
	if atomic.LoadUint64(&words[versionWord]) != version {
		return nil, false
	}
	return answer[:length], true
}

func small(slots int) *Table { return newTable(make([]uint64, slots*slotWords)) }

func wantRead(t *testing.T, table *Table, slot *Slot, want string) {
	t.Helper()
	got, ok := read(table, slot.Index(), slot.Generation())
	if !ok || string(got) != want {
		t.Errorf("read %q, %v; want %q", got, ok, want)
	}
}

func TestASlotHoldsTheLastAnswer(t *testing.T) {
	table := small(1)
	slot := table.Acquire()
	wantRead(t, table, slot, "")
	for _, answer := range []string{"a", "eight ch", "more than eight", "", strings.Repeat("x", Limit)} {
		slot.Set([]byte(answer))
		wantRead(t, table, slot, answer)
	}
}

func TestAnAnswerThatIsTooLongEmptiesTheSlot(t *testing.T) {
	table := small(1)
	slot := table.Acquire()
	slot.Set([]byte("short"))
	slot.Set(bytes.Repeat([]byte("x"), Limit+1))
	wantRead(t, table, slot, "")
}

func TestTheSameAnswerKeepsTheVersion(t *testing.T) {
	slot := small(1).Acquire()
	slot.Set([]byte("a"))
	before := slot.words[versionWord]
	slot.Set([]byte("a"))
	if after := slot.words[versionWord]; after != before {
		t.Errorf("the version went from %d to %d", before, after)
	}
	slot.Set([]byte("b"))
	if after := slot.words[versionWord]; after == before {
		t.Error("another answer kept the version")
	}
}

func TestAReusedSlotNeverShowsAnotherCaller(t *testing.T) {
	table := small(1)
	first := table.Acquire()
	first.Set([]byte("first"))
	first.Release()
	wantRead(t, table, first, "first") // the last request may still be read
	second := table.Acquire()
	if first.Index() != second.Index() || first.Generation() == second.Generation() {
		t.Fatalf("%d.%d is followed by %d.%d", first.Index(), first.Generation(), second.Index(), second.Generation())
	}
	wantRead(t, table, second, "")
	second.Set([]byte("second"))
	if got, ok := read(table, first.Index(), first.Generation()); ok {
		t.Errorf("the first connection reads %q", got)
	}
	wantRead(t, table, second, "second")
}

func TestAFullTableGivesNoSlot(t *testing.T) {
	table := small(2)
	first, second := table.Acquire(), table.Acquire()
	if first == nil || second == nil || first.Index() == second.Index() {
		t.Fatalf("got %v and %v", first, second)
	}
	if third := table.Acquire(); third != nil {
		t.Errorf("a third slot is %d", third.Index())
	}
	first.Release()
	if table.Acquire() == nil {
		t.Error("the slot that was released is not taken again")
	}
}

// Readers run concurrently with a writer whose answers each consist of one letter, and
// with connections that come and go. No answer is mixed or of another generation.
func TestReadersNeverSeeHalfAnAnswer(t *testing.T) {
	table := small(1)
	var generation atomic.Uint32
	var done atomic.Bool
	var whole atomic.Int64
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !done.Load() {
				g := generation.Load()
				answer, ok := read(table, 0, g)
				if !ok || len(answer) == 0 {
					continue
				}
				letter := byte('a' + g%26)
				if answer[0] != letter || bytes.Count(answer, answer[:1]) != len(answer) {
					t.Errorf("generation %d shows %q", g, answer)
					return
				}
				whole.Add(1)
			}
		})
	}
	for i := 0; i < 2000 || whole.Load() < 100 && !t.Failed(); i++ {
		slot := table.Acquire()
		generation.Store(slot.Generation())
		letter := []byte{byte('a' + slot.Generation()%26)}
		for length := range 40 {
			slot.Set(bytes.Repeat(letter, length))
		}
		slot.Release()
	}
	done.Store(true)
	readers.Wait()
}

func TestTheTableIsOutsideTheHeapAndZero(t *testing.T) {
	table, err := NewTable()
	if err != nil {
		t.Fatal(err)
	}
	if len(table.words) != Count*slotWords || table.Address()%8 != 0 {
		t.Errorf("%d words at %#x", len(table.words), table.Address())
	}
	slot := table.Acquire()
	slot.Set([]byte("x"))
	wantRead(t, table, slot, "x")
	if slot.Index() != 0 || slot.Generation() != 1 {
		t.Errorf("the first slot is %d.%d", slot.Index(), slot.Generation())
	}
}
