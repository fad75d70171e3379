package main

import "golang.org/x/sys/unix"

// A read tells that the other end has ended its direction; only poll tells whether
// it has closed the socket, so that nothing is read there any more either.

// hasHungUp reports whether the other end has closed the connection.
func hasHungUp(conn localConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	hungUp := true
	_ = raw.Control(func(fd uintptr) { hungUp = polledHangUp(fd) }) // an error: it is closed
	return hungUp
}

// awaitHangUp waits until the other end has closed the connection. It says no when
// we closed it first.
func awaitHangUp(conn localConn) bool {
	raw, err := conn.SyscallConn()
	return err == nil && raw.Read(polledHangUp) == nil
}

func polledHangUp(fd uintptr) bool {
	state := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always asked for
	n, err := unix.Poll(state, 0)
	return err == nil && n > 0 && state[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
