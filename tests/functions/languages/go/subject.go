// What a Go program of a function may do: goroutines that nothing but a signal interrupts, garbage
// from all of them, a file, a socket, a child, a profile. It prints what it found, a line each.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	// The profiler's timers signal every thread (timer_create, SIGPROF) while all of this runs.
	runtime.SetCPUProfileRate(250)
	say("threads", preempt())
	say("garbage", garbage())
	say("file", file())
	say("socket", socket())
	say("child", child())
	say("signal", signalled())
	runtime.SetCPUProfileRate(0)
	say("seccomp", seccomp())
	say("unshare", denied())
}

func say(name string, what any) {
	fmt.Printf("%s %v\n", name, what)
}

// The loops have no call in them: the collector stops each by a SIGURG to its thread.
func preempt() int {
	runtime.GOMAXPROCS(4)
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
			}
		})
	}
	collections := 0
	for range 10 {
		runtime.GC()
		collections++
	}
	stop.Store(true)
	group.Wait()
	return collections
}

type node struct {
	left, right *node
	data        [64]byte
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

func (n *node) count() int {
	if n == nil {
		return 0
	}
	return 1 + n.left.count() + n.right.count()
}

// A hundred goroutines make trees and drop them, some 40 MB in all.
func garbage() int {
	counts := make(chan int, 100)
	for range 100 {
		go func() { counts <- tree(11).count() }()
	}
	sum := 0
	for range 100 {
		sum += <-counts
	}
	return sum
}

func file() string {
	directory, err := os.MkdirTemp("", "go")
	check(err)
	defer os.RemoveAll(directory)
	check(os.WriteFile(directory+"/a", []byte(strings.Repeat("x", 1<<20)), 0o600))
	check(os.Rename(directory+"/a", directory+"/b"))
	file, err := os.Open(directory + "/b")
	check(err)
	defer file.Close()
	mapped, err := syscall.Mmap(int(file.Fd()), 0, 1<<20, syscall.PROT_READ, syscall.MAP_PRIVATE)
	check(err)
	defer syscall.Munmap(mapped)
	return fmt.Sprint(len(mapped), " ", string(mapped[:1]))
}

// Eight clients at once, on the network poller.
func socket() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	defer listener.Close()
	go func() {
		for {
			peer, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer peer.Close()
				io.Copy(peer, peer)
			}()
		}
	}()
	heard := make(chan string)
	for range 8 {
		go func() {
			peer, err := net.Dial("tcp", listener.Addr().String())
			check(err)
			defer peer.Close()
			peer.SetDeadline(time.Now().Add(10 * time.Second))
			peer.Write([]byte("hello"))
			echo := make([]byte, 5)
			_, err = io.ReadFull(peer, echo)
			check(err)
			heard <- string(echo)
		}()
	}
	all := ""
	for range 8 {
		all += <-heard
	}
	return all
}

func child() string {
	command := exec.Command("sh", "-c", "cat; exit 3")
	command.Stdin = strings.NewReader("said")
	said, _ := command.CombinedOutput()
	return fmt.Sprint(string(said), " ", command.ProcessState.ExitCode())
}

func signalled() string {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM)
	check(syscall.Kill(os.Getpid(), syscall.SIGTERM))
	if <-caught != syscall.SIGTERM {
		return "another"
	}
	return "SIGTERM"
}

func seccomp() string {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	for line := range strings.Lines(string(status)) {
		if mode, found := strings.CutPrefix(line, "Seccomp:"); found {
			return strings.TrimSpace(mode)
		}
	}
	return "not there"
}

// Of no namespace: the kernel refuses that to nobody.
func denied() int {
	var number syscall.Errno
	errors.As(syscall.Unshare(0), &number)
	return int(number)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
