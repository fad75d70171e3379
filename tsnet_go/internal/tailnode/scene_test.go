package tailnode

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// A scene is a part of a test that runs in its own process, because it is about the
// process: its descriptors, its environment, its end.

const sceneVariable = "TSNET_TEST_SCENE"

var scenes = map[string]func() error{}

// play runs a scene and returns the exit status.
func play(name string) int {
	if err := scenes[name](); err != nil {
		fmt.Fprintln(os.NewFile(3, "report"), err)
		return 1
	}
	return 0
}

// runScene plays a scene in a child process and returns what it wrote to descriptors 1
// and 2. An error that the child reports on descriptor 3 fails the test.
func runScene(t *testing.T, name string, environment ...string) (written string) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	child := exec.CommandContext(t.Context(), executable)
	child.Env = append(append(os.Environ(), sceneVariable+"="+name, "TMPDIR="+t.TempDir()), environment...)
	child.ExtraFiles = []*os.File{write}
	output, err := child.CombinedOutput()
	write.Close()
	report := make([]byte, 64<<10)
	n, _ := read.Read(report)
	if err != nil {
		t.Fatalf("the scene %s: %v: %s\nit wrote: %s", name, err, report[:n], output)
	}
	return string(output)
}

// sceneT is the testing.TB of a scene. A failure ends the scene.
type sceneT struct {
	testing.TB
	cleanups []func()
}

func (t *sceneT) Helper()          {}
func (t *sceneT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }
func (t *sceneT) Fatal(args ...any) {
	panic(fmt.Sprint(args...))
}

func (t *sceneT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *sceneT) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *sceneT) TempDir() string {
	dir, err := os.MkdirTemp("", "scene")
	if err != nil {
		panic(err)
	}
	return dir
}

func (t *sceneT) cleanUp() {
	for _, f := range t.cleanups {
		f()
	}
}
