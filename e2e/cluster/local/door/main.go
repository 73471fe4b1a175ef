// A door from the machine's loopback into a network namespace, for one TCP port and nothing else.
//
//	door LISTEN NAMESPACE TARGET
//
// It listens on LISTEN where it is started, then enters NAMESPACE (a path) and runs itself there with the listening
// socket, so that what it accepts outside it connects to TARGET inside. The machine gets no interface and no route.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// The listening socket's number in the second half.
const inherited = 3

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	switch {
	case len(os.Args) == 4:
		log.Fatal(enter(os.Args[1], os.Args[2], os.Args[3]))
	case len(os.Args) == 3 && os.Args[1] == "inside":
		log.Fatal(serve(os.Args[2]))
	default:
		fmt.Fprintln(os.Stderr, "usage: door LISTEN NAMESPACE TARGET")
		os.Exit(2)
	}
}

// enter replaces this process by the second half; it returns only on failure.
func enter(listen, namespace, target string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	// The duplicate lands on a number of its own and closes on exec; the inherited one must not.
	if int(file.Fd()) == inherited {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, inherited, syscall.F_SETFD, 0); errno != 0 {
			return errno
		}
	} else if err := syscall.Dup3(int(file.Fd()), inherited, 0); err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(nsenter, []string{"nsenter", "--net=" + namespace, self, "inside", target}, os.Environ())
}

func serve(target string) error {
	listener, err := net.FileListener(os.NewFile(inherited, "listener"))
	if err != nil {
		return err
	}
	for {
		outside, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer outside.Close()
			inside, err := net.Dial("tcp", target)
			if err != nil {
				log.Print(err)
				return
			}
			defer inside.Close()
			done := make(chan struct{})
			go func() { pass(inside, outside); close(done) }()
			pass(outside, inside)
			<-done
		}()
	}
}

// pass copies one direction and hands on its end.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	to.(*net.TCPConn).CloseWrite()
}
