
# ---- What is run --------------------------------------------------------------------------------

main() {
    read_options "$@"
    prepare
    case $mode in
    undo) undo ;;
    *) set_up ;;
    esac
}

# Only when all of this line has arrived is anything run; and nothing that is run may read standard
# input, because that is this script itself when it is piped into a shell.
{ main "$@" </dev/null; }
