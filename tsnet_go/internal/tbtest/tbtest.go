// Package tbtest holds what the tests of several packages share: bounded waits, a
// check for leaks, and connections.
package tbtest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Limit bounds every wait of the tests. It is long enough for a slow machine, and only
// a failure reaches it.
const Limit = 30 * time.Second

// pollInterval is the pause between looks at a condition.
const pollInterval = 2 * time.Millisecond

// Within runs f and returns its result. If f takes longer than Limit, the test fails
// with the stacks of all goroutines.
func Within[T any](t testing.TB, what string, f func() T) T {
	t.Helper()
	result := make(chan T, 1)
	go func() { result <- f() }()
	return Receive(t, what, result)
}

// Receive returns the next value of a channel, or the zero value of a closed one. If
// that takes longer than Limit, the test fails with the stacks of all goroutines.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(Limit)
	defer timer.Stop()
	select {
	case value := <-from:
		return value
	case <-timer.C:
		t.Fatalf("not within %v: %s\n%s", Limit, what, Stacks())
		panic("unreachable")
	}
}

// Eventually waits for a condition that something else brings about. If that takes
// longer than Limit, the test fails with the stacks of all goroutines.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !poll(holds) {
		t.Fatalf("not within %v: %s\n%s", Limit, what, Stacks())
	}
}

func poll(holds func() bool) bool {
	for deadline := time.Now().Add(Limit); !holds(); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// CheckNoLeaks fails the test if at its end there are goroutines or descriptors that
// were not there at its start, or one of the counts has another value than then.
func CheckNoLeaks(t testing.TB, counts ...func() int) {
	t.Helper()
	read := func() []int {
		values := make([]int, len(counts))
		for i, count := range counts {
			values[i] = count()
		}
		return values
	}
	goroutines, fds, values := runtime.NumGoroutine(), openFDs(t), read()
	t.Cleanup(func() {
		returned := poll(func() bool {
			for i, value := range read() {
				if value != values[i] {
					return false
				}
			}
			return runtime.NumGoroutine() <= goroutines && len(openFDs(t)) <= len(fds)
		})
		if !returned {
			t.Errorf("leaks: goroutines %d, now %d; counts %v, now %v; descriptors %q, now %q\n%s",
				goroutines, runtime.NumGoroutine(), values, read(), fds, openFDs(t), Stacks())
		}
	})
}

// openFDs returns the open descriptors of this process and what each one is.
func openFDs(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err != nil || strings.HasPrefix(target, "/proc/") {
			continue // the descriptor of ReadDir itself
		}
		fds = append(fds, entry.Name()+" "+target)
	}
	return fds
}

// Stacks returns the stacks of all goroutines.
func Stacks() []byte {
	buffer := make([]byte, 4<<20)
	return buffer[:runtime.Stack(buffer, true)]
}
