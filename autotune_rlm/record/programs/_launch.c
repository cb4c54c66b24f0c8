/* Runs a command and reports the largest resident size that it had, in bytes.
 *
 * A child begins with the resident size of whatever forked it, so this one is linked statically and
 * stays below a megabyte. The report goes to the descriptor that AUTOTUNE_RLM_REPORT_FD names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    const char *report = getenv("AUTOTUNE_RLM_REPORT_FD");
    int state = 0;
    struct rusage usage;
    pid_t child = count > 1 ? fork() : -1;
    if (child == 0) {
        execvp(words[1], words + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &state, 0, &usage) < 0) return 126;
    if (report) dprintf(atoi(report), "rss_bytes %ld\n", usage.ru_maxrss * 1024L);
    if (WIFSIGNALED(state)) {
        signal(WTERMSIG(state), SIG_DFL);
        raise(WTERMSIG(state));
    }
    return WEXITSTATUS(state);
}
