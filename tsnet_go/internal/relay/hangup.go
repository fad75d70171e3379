package relay

import "golang.org/x/sys/unix"

// A read reports only that the other end has ended its direction. Poll also reports
// whether it has closed the socket, so that it reads no more either.

// hasHungUp reports whether the other end has closed the connection.
func hasHungUp(conn LocalConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	hungUp := true
	_ = raw.Control(func(fd uintptr) { hungUp = pollHangUp(fd) }) // fails only on a closed connection
	return hungUp
}

// awaitHangUp waits until the other end has closed the connection. It reports false if
// our end was closed first.
func awaitHangUp(conn LocalConn) bool {
	raw, err := conn.SyscallConn()
	return err == nil && raw.Read(pollHangUp) == nil
}

func pollHangUp(fd uintptr) bool {
	state := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always reported
	n, err := unix.Poll(state, 0)
	return err == nil && n > 0 && state[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
