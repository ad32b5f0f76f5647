package admin

import (
	"context"
	"log/slog"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// auditIDs bounds how many message ids one audit line names.
const auditIDs = 20

// caller is who is at the other end of the socket, by the kernel's word.
type caller struct {
	UID, PID int
}

// callerKey finds the caller in a connection's context.
type callerKey struct{}

// peerOf asks the kernel who connected (unix(7), SO_PEERCRED). Both numbers are
// -1 where it does not say.
func peerOf(conn net.Conn) caller {
	none := caller{UID: -1, PID: -1}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return none
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return none
	}
	out := none
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			out = caller{UID: int(cred.Uid), PID: int(cred.Pid)}
		}
	})
	return out
}

// withCaller is http.Server's ConnContext.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, peerOf(conn))
}

// callerName is the user's name, "" where the number has none.
func (c caller) name() string {
	if c.UID < 0 {
		return ""
	}
	u, err := user.LookupId(strconv.Itoa(c.UID))
	if err != nil {
		return ""
	}
	return u.Username
}

// audit writes the one line that says who did what to how many. ids may be nil;
// err is what became of it.
func (s *Server) audit(ctx context.Context, action string, ids []string, count int, err error, more ...slog.Attr) {
	who, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		who = caller{UID: -1, PID: -1}
	}
	attrs := make([]slog.Attr, 0, 8+len(more))
	attrs = append(attrs,
		slog.String("action", action),
		slog.Int("uid", who.UID),
		slog.String("user", who.name()),
		slog.Int("pid", who.PID),
		slog.Int("count", count))
	attrs = append(attrs, more...)
	if len(ids) > 0 {
		attrs = append(attrs, slog.Any("queue_ids", ids[:min(len(ids), auditIDs)]))
	}
	if err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	s.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "audit", attrs...)
}
