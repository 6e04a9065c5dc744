
# ---- What is run --------------------------------------------------------------------------------

main() {
    read_options "$@"
    prepare
    case $mode in
    undo) undo ;;
    *) set_up ;;
    esac
    if [ "$dry" = yes ]; then say "a dry run: nothing was changed"; fi
}

# Only when all of this line has arrived is anything run; and nothing that is run may read standard
# input, because that is this script itself when it is piped into a shell.
{ main "$@" </dev/null; }
